{{/*
Names are asked for at port 53 of any address: a node-local cache has the node's. Policies see the server's own port,
and that is 5353 where it may not bind a low one, as on OpenShift.
*/}}
{{- define "tradewind.egressDns" -}}
- ports:
    - {port: 53, protocol: UDP}
    - {port: 53, protocol: TCP}
    - {port: 5353, protocol: UDP}
    - {port: 5353, protocol: TCP}
{{- end -}}

{{- define "tradewind.egressBasics" -}}
{{ include "tradewind.egressDns" . }}
# The API server, which no selector can name.
- ports:
    {{- range .Values.networkPolicies.apiServer.ports }}
    - {port: {{ . }}, protocol: TCP}
    {{- end }}
  to:
    {{- range .Values.networkPolicies.apiServer.cidrs }}
    - ipBlock:
        cidr: {{ . | quote }}
    {{- end }}
{{- end -}}

{{/* The watched namespaces, by the label that Kubernetes gives each. */}}
{{- define "tradewind.watchedSelector" -}}
{{- if include "tradewind.watchesAll" . -}}
{}
{{- else -}}
matchExpressions:
  - key: kubernetes.io/metadata.name
    operator: In
    values: {{ include "tradewind.namespaces" . }}
{{- end -}}
{{- end -}}
