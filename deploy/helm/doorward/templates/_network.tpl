{{/* doorward.fromMonitoring is the ingress rule for metrics and the admin API. */}}
{{- define "doorward.fromMonitoring" -}}
{{- with .Values.monitoringNamespace }}
- from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: {{ . }}}}}]
  ports: [{port: {{ $.Values.ports.admin }}}]
{{- end }}
{{- end -}}
