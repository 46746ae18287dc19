{{/* Environment of the containers. */}}

{{/* A setting whose value is in a Secret. Argument: dict root, name, credential, optional. */}}
{{- define "clerk-sync.secretEnv" -}}
{{- $credential := get .root.Values.credentials .credential -}}
- name: {{ .name }}
  valueFrom:
    secretKeyRef:
      name: {{ default .root.Values.existingSecret $credential.secret }}
      key: {{ $credential.key }}
      {{- if .optional }}
      optional: true
      {{- end }}
{{- end -}}

{{/* Where RabbitMQ is. Argument: dict root, user (ingest, worker, setup). */}}
{{- define "clerk-sync.amqpEnv" -}}
{{- $root := .root -}}
{{- if $root.Values.rabbitmq.create -}}
{{- $tls := ne $root.Values.rabbitmq.tlsSecret "" -}}
{{- /* The topology operator makes this Secret for the User of the same name. */ -}}
{{- $secret := printf "%s-%s-user-credentials" (include "clerk-sync.rabbitmq" $root) .user -}}
- name: AMQP_USERNAME
  valueFrom:
    secretKeyRef:
      name: {{ $secret }}
      key: username
- name: AMQP_PASSWORD
  valueFrom:
    secretKeyRef:
      name: {{ $secret }}
      key: password
- name: AMQP_URL
  value: {{ printf "%s://$(AMQP_USERNAME):$(AMQP_PASSWORD)@%s.%s.svc:%d/%s" (ternary "amqps" "amqp" $tls) (include "clerk-sync.rabbitmq" $root) $root.Release.Namespace (ternary 5671 5672 $tls) $root.Values.rabbitmq.vhost | quote }}
{{- else -}}
{{ include "clerk-sync.secretEnv" (dict "root" $root "name" "AMQP_URL" "credential" (printf "%sAmqpUrl" .user)) }}
{{- end }}
{{- with $root.Values.amqpCa }}
{{- if or .secret .configMap }}
- name: AMQP_CA_CERT
  value: /etc/clerk-sync/amqp-ca/{{ .key }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Settings of everybody, then the component's own. Argument: dict root, env. */}}
{{- define "clerk-sync.plainEnv" -}}
{{- range $name, $value := merge (dict) .env .root.Values.env }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- end -}}
