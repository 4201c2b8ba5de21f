from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class MetersConfig(AppConfig):
    name = "meters"
    verbose_name = _("Sites and devices")
    default_auto_field = "django.db.models.BigAutoField"
