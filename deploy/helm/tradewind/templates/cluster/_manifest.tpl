{{/*
The ServingCluster as JSON: Go's YAML would write 10000000 as 1e+07. It carries no app.kubernetes.io/instance: tools
that find their own by that label would delete what is not among their manifests.
*/}}
{{- define "tradewind.cluster" -}}
{{- $labels := dict "app.kubernetes.io/name" "tradewind" "app.kubernetes.io/part-of" "tradewind" -}}
{{- $metadata := dict "name" .Values.cluster.name "namespace" .Release.Namespace "labels" $labels "annotations" (dict "tradewind.dev/release" .Release.Name) -}}
{{- dict "apiVersion" "tradewind.dev/v1alpha1" "kind" "ServingCluster" "metadata" $metadata "spec" .Values.cluster.spec | toPrettyJson -}}
{{- end -}}
