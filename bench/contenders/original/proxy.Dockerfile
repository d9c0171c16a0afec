ARG NGINX_IMAGE
FROM ${NGINX_IMAGE}
COPY nginx.conf certificate.pem key.pem /etc/nginx/
