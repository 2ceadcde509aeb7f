{{/* The operator's settings: field names are those of tradewind_operator.settings.Settings. */}}
{{- define "tradewind.settings" -}}
{{- $gateway := include "tradewind.image" (dict "root" . "image" .Values.gateway.image) -}}
namespaces: {{ include "tradewind.namespaces" . }}
images:
  head: {{ $gateway }}
  gateway: {{ $gateway }}
  engineCpu: {{ include "tradewind.image" (dict "root" . "image" .Values.engineCpu.image) }}
  engineCuda: {{ include "tradewind.image" (dict "root" . "image" .Values.engineCuda.image) }}
allowedImages: {{ .Values.allowedImages | toJson }}
imagePullSecrets: {{ .Values.global.imagePullSecrets | toJson }}
environment: {{ include "tradewind.otlpEnvironment" . | fromYamlArray | include "tradewind.pairs" }}
leaderElection:
  leaseName: {{ include "tradewind.operator" . }}
  leaseNamespace: {{ .Release.Namespace }}
{{- if .Values.cluster.create }}
clusterConfigMap: {{ include "tradewind.clusterConfig" . }}
{{- end }}
healthPort: 8081
logLevel: {{ .Values.operator.logLevel }}
{{- with .Values.expose.service }}
{{- if or (ne .type "ClusterIP") .annotations }}
endpointService:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- end -}}

{{/* [{name, value}] as a JSON object. */}}
{{- define "tradewind.pairs" -}}
{{- $pairs := dict -}}
{{- range . }}{{ $_ := set $pairs .name .value }}{{ end -}}
{{- $pairs | toJson -}}
{{- end -}}

{{/* OpenTelemetry's own variables, which the operator, the gateways and the engines read alike. */}}
{{- define "tradewind.otlpEnvironment" -}}
{{- with .Values.otlp.endpoint -}}
- name: OTEL_EXPORTER_OTLP_ENDPOINT
  value: {{ . | quote }}
- name: OTEL_EXPORTER_OTLP_PROTOCOL
  value: http/protobuf
- name: OTEL_TRACES_SAMPLER
  value: parentbased_traceidratio
- name: OTEL_TRACES_SAMPLER_ARG
  value: {{ $.Values.otlp.samplingRatio | quote }}
{{- end -}}
{{- end -}}
