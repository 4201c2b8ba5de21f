from __future__ import annotations

from django.urls import path
from django.views.i18n import set_language

from webapp.dashboard import reports, views

urlpatterns = [
    path("", views.home, name="home"),
    path("sites/", views.site_list, name="sites"),
    path("sites/<int:site_id>/", views.site, name="site"),
    path("sites/<int:site_id>/parts/", views.parts, name="site-parts"),
    path("sites/<int:site_id>/chart/", views.chart, name="site-chart"),
    path("sites/<int:site_id>/report/", reports.page, name="site-report"),
    path("sites/<int:site_id>/report.csv", reports.csv_file, name="site-report-csv"),
    path("language/", set_language, name="set_language"),
]
