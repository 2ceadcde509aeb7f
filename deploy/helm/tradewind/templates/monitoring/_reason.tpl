{{/*
For an alert about a resource: Prometheus' template of `: ` and the reason that a condition of it gives now.
The reason is asked for when the text is made. As a label it would make another alert with each change, whose
`for` begins anew: a model that fails, is tried again and fails would never be told of.
Takes `kind`, a term of that template, and `condition`. For YAML in single quotes.
*/}}
{{- define "tradewind.alertReason" -}}
{{ "{{" }} with printf "tradewind_operator_condition{kind=%q, condition=%q, status!=\"True\", namespace=%q, name=%q}" {{ .kind }} {{ .condition | quote }} $labels.namespace $labels.name | query {{ "}}" }}: {{ "{{" }} . | first | label "reason" {{ "}}{{" }} end {{ "}}" }}
{{- end -}}
