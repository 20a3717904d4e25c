#!/bin/sh
# The bucket of docker-compose.scale.yml: made, with a user who may read and write it and nothing else, and told to tell of its objects.
set -eu

mc alias set home http://minio:9000 "$MINIO_ROOT_USER" "$MINIO_ROOT_PASSWORD" >/dev/null
mc mb --ignore-existing home/pictures
mc admin user add home imagesearch-services "$S3_SECRET_KEY"
mc admin policy create home pictures /prepare/pictures.json
mc admin policy detach home pictures --user imagesearch-services >/dev/null 2>&1 || true # attaching twice is an error
mc admin policy attach home pictures --user imagesearch-services
mc event add --ignore-existing --event put,delete home/pictures arn:minio:sqs::IMAGES:webhook
