from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class CsmsConfig(AppConfig):
    name = "csms"
    verbose_name = _("Charging stations")
    default_auto_field = "django.db.models.BigAutoField"
