{{/* The ServingCluster as JSON: Go's YAML would write 10000000 as 1e+07. */}}
{{- define "tradewind.cluster" -}}
{{- $labels := include "tradewind.labels" (dict "root" . "component" "cluster") | fromYaml -}}
{{- dict "apiVersion" "tradewind.dev/v1alpha1" "kind" "ServingCluster" "metadata" (dict "name" .Values.cluster.name "namespace" .Release.Namespace "labels" $labels) "spec" .Values.cluster.spec | toPrettyJson -}}
{{- end -}}

{{/* The whole pod template of the Job that applies it, so that its text can be hashed: a Job never changes. */}}
{{- define "tradewind.setupPod" -}}
metadata:
  labels:
    {{- include "tradewind.selector" (dict "root" . "component" "cluster-setup") | nindent 4 }}
spec:
  restartPolicy: OnFailure
  serviceAccountName: {{ include "tradewind.setup" . }}
  automountServiceAccountToken: true
  enableServiceLinks: false
  {{- if .Values.global.imagePullSecrets }}
  {{- include "tradewind.pullSecrets" . | nindent 2 }}
  {{- end }}
  securityContext:
    {{- include "tradewind.podSecurity" . | nindent 4 }}
  {{- with .Values.operator.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.operator.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  containers:
    - name: apply
      image: {{ include "tradewind.image" (dict "root" . "image" .Values.operator.image) }}
      imagePullPolicy: {{ .Values.operator.imagePullPolicy }}
      command: [/opt/tradewind/bin/python, -I, /etc/tradewind/setup/apply_cluster.py, /etc/tradewind/setup/cluster.json]
      resources:
        requests: {cpu: 10m, memory: 64Mi}
        limits: {memory: 128Mi}
      securityContext:
        {{- include "tradewind.containerSecurity" . | nindent 8 }}
      volumeMounts:
        - name: setup
          mountPath: /etc/tradewind/setup
          readOnly: true
  volumes:
    - name: setup
      configMap:
        name: {{ include "tradewind.setup" . }}
{{- end -}}
