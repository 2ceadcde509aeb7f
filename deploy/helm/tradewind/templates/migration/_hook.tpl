{{/* What is there for the migration alone: made after the release, and gone once it is done. */}}
{{- define "tradewind.migrationHook" -}}
helm.sh/hook: post-install,post-upgrade
helm.sh/hook-weight: {{ .weight | quote }}
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end -}}

{{- define "tradewind.migration" -}}
{{- include "tradewind.name" (dict "root" . "part" "migration") -}}
{{- end -}}

{{- define "tradewind.foreignMigration" -}}
{{- printf "%s-%s" (include "tradewind.migration" . | trunc 50 | trimSuffix "-") (printf "%s/%s" .Release.Namespace .Release.Name | sha256sum | trunc 8) -}}
{{- end -}}
