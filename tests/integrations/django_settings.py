"""Settings of Django for django-celery-beat, with a database that the environment names."""

import os

SECRET_KEY = "only for tests"
USE_TZ = True
TIME_ZONE = "UTC"
INSTALLED_APPS = ["django_celery_beat"]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get("BEAT_DATABASE", ":memory:"),
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
