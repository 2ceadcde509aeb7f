{{/*
Names. Everything is named after the release, which Helm keeps unique in a namespace, and ends in the part that
it is for, so that no two releases can make the same name.
*/}}
{{- define "tradewind.name" -}}
{{- $whole := printf "%s-%s" .root.Release.Name .part -}}
{{- if le (len $whole) 63 -}}
{{- $whole -}}
{{- else -}}
{{- printf "%s-%s-%s" (.root.Release.Name | trunc 30 | trimSuffix "-") (.root.Release.Name | sha256sum | trunc 8) .part -}}
{{- end -}}
{{- end -}}

{{- define "tradewind.operator" -}}
{{- include "tradewind.name" (dict "root" . "part" "operator") -}}
{{- end -}}

{{- define "tradewind.clusterConfig" -}}
{{- include "tradewind.name" (dict "root" . "part" "cluster") -}}
{{- end -}}

{{/* For objects outside the release's namespace: two releases of one name in two namespaces may meet there. */}}
{{- define "tradewind.foreignName" -}}
{{- printf "%s-%s" (include "tradewind.operator" . | trunc 50 | trimSuffix "-") (printf "%s/%s" .Release.Namespace .Release.Name | sha256sum | trunc 8) -}}
{{- end -}}

{{- define "tradewind.selector" -}}
app.kubernetes.io/name: tradewind
app.kubernetes.io/instance: {{ .root.Release.Name | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "tradewind.labels" -}}
{{ include "tradewind.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: tradewind
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | trunc 63 }}
{{- end -}}

{{/* An image: by digest where one is given; the registry may be replaced for all. */}}
{{- define "tradewind.image" -}}
{{- $registry := .root.Values.global.imageRegistry | default .image.registry | trimSuffix "/" -}}
{{- $path := ternary (printf "%s/%s" $registry .image.repository) .image.repository (ne $registry "") -}}
{{- if .image.digest -}}
{{- printf "%s@%s" $path .image.digest -}}
{{- else -}}
{{- printf "%s:%s" $path (.image.tag | default .root.Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{- define "tradewind.pullSecrets" -}}
imagePullSecrets:
  {{- range .Values.global.imagePullSecrets }}
  - name: {{ . }}
  {{- end }}
{{- end -}}

{{/* Pod security "restricted", and nothing to write to but what is mounted. */}}
{{- define "tradewind.podSecurity" -}}
runAsNonRoot: true
{{- if not .Values.operator.arbitraryUser }}
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
{{- end }}
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "tradewind.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* Watched namespaces as a JSON list; the release's own is meant by none. */}}
{{- define "tradewind.namespaces" -}}
{{- .Values.watchedNamespaces | default (list .Release.Namespace) | uniq | toJson -}}
{{- end -}}

{{- define "tradewind.watchesAll" -}}
{{- if has "*" .Values.watchedNamespaces -}}yes{{- end -}}
{{- end -}}

{{/* Refuses what the schema cannot express. Every message says where, what was found and what is allowed. */}}
{{- define "tradewind.check" -}}
{{- $v := .Values -}}
{{- if and (include "tradewind.watchesAll" .) (gt (len $v.watchedNamespaces) 1) -}}
{{- fail "watchedNamespaces: found \"*\" beside other namespaces; allowed: \"*\" alone, or names" -}}
{{- end -}}
{{- if and $v.cluster.create (not (include "tradewind.watchesAll" .)) (not (has .Release.Namespace (include "tradewind.namespaces" . | fromJsonArray))) -}}
{{- fail (printf "cluster.create: the ServingCluster %q would be made in namespace %q, which is not in watchedNamespaces, so nobody would serve it; allowed: add %q to watchedNamespaces, or set cluster.create=false" $v.cluster.name .Release.Namespace .Release.Namespace) -}}
{{- end -}}
{{- if and $v.cluster.create (eq (int (dig "gateway" "replicas" 2 $v.cluster.spec)) 1) -}}
{{- fail "cluster.spec.gateway.replicas: found 1; allowed: at least 2, so that losing one pod costs no request" -}}
{{- end -}}
{{- $ways := list -}}
{{- if $v.expose.httpRoute.enabled }}{{ $ways = append $ways "expose.httpRoute" }}{{ end -}}
{{- if $v.expose.ingress.enabled }}{{ $ways = append $ways "expose.ingress" }}{{ end -}}
{{- if ne $v.expose.service.type "ClusterIP" }}{{ $ways = append $ways (printf "expose.service.type=%s" $v.expose.service.type) }}{{ end -}}
{{- if gt (len $ways) 1 -}}
{{- fail (printf "expose: found %s together; allowed: one of them, so that there is one way in to guard" (join " and " $ways)) -}}
{{- end -}}
{{- if and $v.expose.httpRoute.enabled (not $v.expose.httpRoute.parentRefs) -}}
{{- fail "expose.httpRoute.parentRefs: found none; allowed: at least one Gateway, such as {name: public, namespace: gateways}" -}}
{{- end -}}
{{- if and $v.expose.ingress.enabled (not $v.expose.ingress.hosts) -}}
{{- fail "expose.ingress.hosts: found none; allowed: at least one host name" -}}
{{- end -}}
{{- end -}}
