{{/*
A program that is run once per release. Argument: dict root, component, values, hook, args, env (text).

As a hook it is made anew each time. Otherwise its name holds a hash of what it runs, since a Job
cannot be changed: it is run again when something about it has changed.
*/}}
{{- define "clerk-sync.job" -}}
{{- $template := include "clerk-sync.jobPod" . -}}
apiVersion: batch/v1
kind: Job
metadata:
  {{- if .hook }}
  name: {{ include "clerk-sync.fullname" .root }}-{{ .component }}
  {{- else }}
  name: {{ include "clerk-sync.fullname" .root }}-{{ .component }}-{{ sha256sum $template | trunc 8 }}
  {{- end }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "clerk-sync.labels" . | nindent 4 }}
  {{- if .hook }}
  annotations:
    helm.sh/hook: pre-install,pre-upgrade
    helm.sh/hook-weight: "0"
    # What it printed stays to be read until the next time.
    helm.sh/hook-delete-policy: before-hook-creation
  {{- end }}
spec:
  backoffLimit: {{ .values.backoffLimit }}
  activeDeadlineSeconds: {{ .values.activeDeadlineSeconds }}
  template:
    {{- $template | nindent 4 }}
{{- end -}}

{{- define "clerk-sync.jobPod" -}}
metadata:
  labels:
    {{- include "clerk-sync.selectorLabels" . | nindent 4 }}
    app.kubernetes.io/part-of: clerk-sync
spec:
  # A hook comes before the release's own ServiceAccount. No token is mounted in any case.
  serviceAccountName: {{ ternary "default" (include "clerk-sync.serviceAccountName" .root) .hook }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  restartPolicy: OnFailure
  {{- with .root.Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  securityContext:
    {{- include "clerk-sync.podSecurity" . | nindent 4 }}
  containers:
    - name: {{ .component }}
      image: {{ include "clerk-sync.image" .root }}
      imagePullPolicy: {{ .root.Values.image.pullPolicy }}
      command: [/usr/local/bin/clerk-sync]
      args: {{ .args | toJson }}
      env:
        {{- .env | trim | nindent 8 }}
        {{- include "clerk-sync.plainEnv" (dict "root" .root "env" .values.env) | trim | nindent 8 }}
      resources:
        {{- toYaml .values.resources | nindent 8 }}
      securityContext:
        {{- include "clerk-sync.containerSecurity" . | nindent 8 }}
      {{- with include "clerk-sync.volumeMounts" .root | trim }}
      volumeMounts:
        {{- . | nindent 8 }}
      {{- end }}
  {{- with include "clerk-sync.volumes" .root | trim }}
  volumes:
    {{- . | nindent 4 }}
  {{- end }}
{{- end -}}
