{{/* Pieces of NetworkPolicies. */}}

{{/* Ports, in one direction, to or from peers; nobody named means everybody. Argument: dict way (from, to), peers, ports. */}}
{{- define "clerk-sync.networkRule" -}}
- ports:
    {{- range .ports }}
    - { protocol: TCP, port: {{ . }} }
    {{- end }}
  {{- with .peers }}
  {{ $.way }}:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}

{{- define "clerk-sync.toRabbitmq" -}}
{{- $policy := .Values.networkPolicy.rabbitmq -}}
{{- $peers := $policy.to -}}
{{- if and .Values.rabbitmq.create (not $peers) -}}
{{- $peers = list (dict "podSelector" (dict "matchLabels" (dict "app.kubernetes.io/name" (include "clerk-sync.rabbitmq" .)))) -}}
{{- end -}}
{{ include "clerk-sync.networkRule" (dict "way" "to" "peers" $peers "ports" $policy.ports) }}
{{- end -}}

{{- define "clerk-sync.toDatabase" -}}
{{ include "clerk-sync.networkRule" (dict "way" "to" "peers" .Values.networkPolicy.database.to "ports" .Values.networkPolicy.database.ports) }}
{{- end -}}

{{- define "clerk-sync.toClerk" -}}
{{ include "clerk-sync.networkRule" (dict "way" "to" "peers" .Values.networkPolicy.clerk.to "ports" .Values.networkPolicy.clerk.ports) }}
{{- end -}}

{{/*
Argument: dict root, component, ingress (text), egress (text), hook. A hook's policy is made before
its Job, and stays when the release is uninstalled.
*/}}
{{- define "clerk-sync.networkPolicy" -}}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  {{- include "clerk-sync.metadata" . | nindent 2 }}
  {{- if .hook }}
  annotations:
    helm.sh/hook: pre-install,pre-upgrade
    helm.sh/hook-weight: "-5"
    helm.sh/hook-delete-policy: before-hook-creation
  {{- end }}
spec:
  podSelector:
    matchLabels:
      {{- include "clerk-sync.selectorLabels" . | nindent 6 }}
  policyTypes: [Ingress, Egress]
  {{- with .ingress }}
  ingress:
    {{- . | nindent 4 }}
  {{- end }}
  egress:
    # DNS, wherever it is: some clusters answer on an address of the node.
    - ports:
        - { protocol: UDP, port: 53 }
        - { protocol: TCP, port: 53 }
    {{- .egress | nindent 4 }}
    {{- with .root.Values.networkPolicy.extraEgress }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end -}}
