import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('csms', '0005_reports_monitoring_needs'),
    ]

    operations = [
        migrations.AddField(
            model_name='stationcertificate',
            name='identity',
            field=models.CharField(blank=True, max_length=255, verbose_name='identity'),
        ),
        migrations.AlterField(
            model_name='stationcertificate',
            name='station',
            field=models.ForeignKey(blank=True, help_text='empty: the station was deleted, the certificate is not forgotten', null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='certificates', to='csms.chargingstation', verbose_name='station'),
        ),
    ]
