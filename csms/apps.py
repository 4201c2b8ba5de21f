from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class CsmsConfig(AppConfig):
    name = "csms"
    verbose_name = _("Charging stations")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from django.db.models.signals import post_migrate

        from csms import append_only, billing, costs

        post_migrate.connect(append_only.install, sender=self)
        costs.offer(billing.Pricer())
