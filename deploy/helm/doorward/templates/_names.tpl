{{- define "doorward.name" -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- if not (contains "doorward" .Release.Name) }}-doorward{{ end -}}
{{- end -}}

{{- define "doorward.labels" -}}
app.kubernetes.io/name: doorward
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "doorward.selector" -}}
app.kubernetes.io/name: doorward
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "doorward.serviceAccount" -}}
{{- if .Values.serviceAccount.name }}{{ .Values.serviceAccount.name }}
{{- else if .Values.serviceAccount.create }}{{ include "doorward.name" . }}
{{- else }}default{{ end -}}
{{- end -}}

{{- define "doorward.image" -}}
{{- $repository := required "image.repository is missing: name where you pushed the image that the Dockerfile builds" .Values.image.repository -}}
{{- if .Values.image.digest }}{{ $repository }}@{{ .Values.image.digest }}
{{- else }}{{ $repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}{{ end -}}
{{- end -}}

{{- define "doorward.port" -}}
{{- if .Values.ports.visitors }}{{ .Values.ports.visitors }}
{{- else if eq .Values.mode "sidecar" }}8080
{{- else }}8443{{ end -}}
{{- end -}}
