{{/* Names and labels. */}}

{{- define "clerk-sync.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* Short enough for the longest suffix, `-rabbitmq-dead-letters`. */}}
{{- define "clerk-sync.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains (include "clerk-sync.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "clerk-sync.name" .) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* What never changes, for selectors. Argument: dict root, component. */}}
{{- define "clerk-sync.selectorLabels" -}}
app.kubernetes.io/name: {{ include "clerk-sync.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{/* Argument: dict root, component. */}}
{{- define "clerk-sync.labels" -}}
{{ include "clerk-sync.selectorLabels" . }}
app.kubernetes.io/part-of: clerk-sync
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Name, namespace and labels of an object. Argument: dict root, component. */}}
{{- define "clerk-sync.metadata" -}}
name: {{ include "clerk-sync.fullname" .root }}-{{ .component }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- include "clerk-sync.labels" . | nindent 2 }}
{{- end -}}

{{- define "clerk-sync.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "clerk-sync.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "clerk-sync.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ default $.Chart.AppVersion .tag }}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "clerk-sync.rabbitmq" -}}
{{ include "clerk-sync.fullname" . }}-rabbitmq
{{- end -}}

{{/* First part of every name on RabbitMQ. */}}
{{- define "clerk-sync.queuePrefix" -}}
{{ default "clerk" .Values.env.QUEUE_PREFIX }}
{{- end -}}
