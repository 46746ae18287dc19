{{/*
What ingest and api share: a Service, an Ingress and a disruption budget.
*/}}

{{/* Argument: dict root, component, values. */}}
{{- define "clerk-sync.service" -}}
apiVersion: v1
kind: Service
metadata:
  {{- include "clerk-sync.metadata" . | nindent 2 }}
  {{- with .values.service.annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  type: {{ .values.service.type }}
  # The admin port is no part of it.
  ports:
    - name: http
      port: {{ .values.service.port }}
      targetPort: http
      appProtocol: http
  selector:
    {{- include "clerk-sync.selectorLabels" . | nindent 4 }}
{{- end -}}

{{/* Argument: dict root, component, values, paths (list of dict path, pathType). */}}
{{- define "clerk-sync.ingress" -}}
{{- $name := printf "%s-%s" (include "clerk-sync.fullname" .root) .component -}}
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  {{- include "clerk-sync.metadata" . | nindent 2 }}
  {{- with .values.ingress.annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  {{- with .values.ingress.className }}
  ingressClassName: {{ . }}
  {{- end }}
  {{- with .values.ingress.tlsSecret }}
  tls:
    - hosts: [{{ $.values.ingress.host }}]
      secretName: {{ . }}
  {{- end }}
  rules:
    - host: {{ .values.ingress.host }}
      http:
        paths:
          {{- range .paths }}
          - path: {{ .path }}
            pathType: {{ .pathType }}
            backend:
              service:
                name: {{ $name }}
                port: { name: http }
          {{- end }}
{{- end -}}

{{/*
Argument: dict root, component, values. Pods that are not ready, since RabbitMQ or the database is
away, may be evicted: they would hold up the drain of a node for nothing.
*/}}
{{- define "clerk-sync.pdb" -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  {{- include "clerk-sync.metadata" . | nindent 2 }}
spec:
  maxUnavailable: {{ .values.pdb.maxUnavailable }}
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      {{- include "clerk-sync.selectorLabels" . | nindent 6 }}
{{- end -}}
