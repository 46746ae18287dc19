{{/* What every pod and every container has. */}}

{{- define "clerk-sync.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "clerk-sync.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{- define "clerk-sync.volumeMounts" -}}
{{- if or .Values.amqpCa.secret .Values.amqpCa.configMap }}
- name: amqp-ca
  mountPath: /etc/clerk-sync/amqp-ca
  readOnly: true
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "clerk-sync.volumes" -}}
{{- if .Values.amqpCa.secret }}
- name: amqp-ca
  secret:
    secretName: {{ .Values.amqpCa.secret }}
    items:
      - key: {{ .Values.amqpCa.key }}
        path: {{ .Values.amqpCa.key }}
{{- else if .Values.amqpCa.configMap }}
- name: amqp-ca
  configMap:
    name: {{ .Values.amqpCa.configMap }}
    items:
      - key: {{ .Values.amqpCa.key }}
        path: {{ .Values.amqpCa.key }}
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* /livez is the process alone; /readyz looks at RabbitMQ and the database, with 2 s for each. */}}
{{- define "clerk-sync.probes" -}}
livenessProbe:
  httpGet: { path: /livez, port: admin }
  periodSeconds: 10
  timeoutSeconds: 3
  failureThreshold: 6
readinessProbe:
  httpGet: { path: /readyz, port: admin }
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: 2
{{- end -}}

{{/* preStop: argument dict root, seconds. `sleep` is done by the kubelet: the image has no shell. */}}
{{- define "clerk-sync.preStop" -}}
{{- if and (gt (int .seconds) 0) (semverCompare ">=1.30.0-0" .root.Capabilities.KubeVersion.Version) }}
lifecycle:
  preStop:
    sleep:
      seconds: {{ .seconds }}
{{- end }}
{{- end -}}

{{/*
The pod of a Deployment: all but its containers. Argument: dict root, component, values.
*/}}
{{- define "clerk-sync.podMetadata" -}}
labels:
  {{- include "clerk-sync.labels" . | nindent 2 }}
  {{- with .values.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with .values.podAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "clerk-sync.podSpec" -}}
serviceAccountName: {{ include "clerk-sync.serviceAccountName" .root }}
automountServiceAccountToken: false
enableServiceLinks: false
terminationGracePeriodSeconds: {{ add .values.terminationGracePeriodSeconds (default 0 .values.preStopSleepSeconds) }}
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- include "clerk-sync.podSecurity" . | nindent 2 }}
{{- with .values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
topologySpreadConstraints:
  {{- with .values.topologySpreadConstraints }}
  {{- toYaml . | nindent 2 }}
  {{- else }}
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "clerk-sync.selectorLabels" . | nindent 8 }}
  {{- end }}
{{- with include "clerk-sync.volumes" .root | trim }}
volumes:
  {{- . | nindent 2 }}
{{- end }}
{{- end -}}
