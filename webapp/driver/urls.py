from __future__ import annotations

from django.urls import path

from webapp.driver import app, views

urlpatterns = [
    path("", views.home, name="driver"),
    path("sessions/<int:pk>/state/", views.state, name="driver-state"),
    path("sessions/<int:pk>/goal/", views.change_goal, name="driver-goal"),
    path("sessions/<int:pk>/stop/", views.stop, name="driver-stop"),
    path("start/", views.start, name="driver-start"),
    path("start/awaited/", views.awaited, name="driver-awaited"),
    path("history/", views.history, name="driver-history"),
    path("manifest.webmanifest", app.manifest, name="driver-manifest"),
    path("worker.js", app.worker, name="driver-worker"),
    path("offline/", app.offline, name="driver-offline"),
]
