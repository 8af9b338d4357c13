{{/* doorward.podSecurity is the securityContext of a pod with Doorward in it. */}}
{{- define "doorward.podSecurity" -}}
runAsNonRoot: true
fsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{/* doorward.container is the container without a list item's dash. */}}
{{- define "doorward.container" -}}
name: doorward
image: {{ include "doorward.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
args: [serve, --config, /etc/doorward/doorward.yaml]
{{- with .Values.env }}
env:
  {{- toYaml . | nindent 2 }}
{{- end }}
ports:
  - {name: doorward, containerPort: {{ include "doorward.port" . }}}
  - {name: doorward-admin, containerPort: {{ .Values.ports.admin }}}
startupProbe:
  httpGet: {path: /readyz, port: doorward-admin}
  periodSeconds: 1
  failureThreshold: 60
readinessProbe:
  httpGet: {path: /readyz, port: doorward-admin}
  periodSeconds: 5
livenessProbe:
  httpGet: {path: /healthz, port: doorward-admin}
  periodSeconds: 10
  failureThreshold: 6
resources:
  {{- toYaml .Values.resources | nindent 2 }}
securityContext:
  runAsUser: 65532
  runAsGroup: 65532
  runAsNonRoot: true
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
  seccompProfile: {type: RuntimeDefault}
volumeMounts:
  # Whole directories, no subPath: files mounted by subPath never change.
  - {name: doorward-config, mountPath: /etc/doorward, readOnly: true}
  - {name: doorward-state, mountPath: /var/lib/doorward}
{{- if .Values.kubernetesTokens }}
  - {name: doorward-service-account, mountPath: /var/run/secrets/kubernetes.io/serviceaccount, readOnly: true}
{{- end }}
{{- end -}}

{{/*
doorward.sidecar is an item of a pod's initContainers: a native sidecar, which
starts before the application and stops after it. In a chart that has this one as
a dependency: include "doorward.sidecar" .Subcharts.doorward
*/}}
{{- define "doorward.sidecar" -}}
- {{ include "doorward.container" . | nindent 2 | trim }}
  restartPolicy: Always
{{- end -}}

{{/* doorward.volumes are items of a pod's volumes, for either mode. */}}
{{- define "doorward.volumes" -}}
# Configuration and secrets in one volume, so that both change in one step.
- name: doorward-config
  projected:
    defaultMode: 0440
    sources:
      - configMap: {name: {{ .Values.existingConfigMap | default (include "doorward.name" .) }}}
      {{- range .Values.files }}
      - secret:
          name: {{ .secret }}
          items:
            {{- range $key, $path := .items }}
            - {key: {{ $key | quote }}, path: {{ $path | quote }}}
            {{- end }}
      {{- end }}
- name: doorward-state
  emptyDir: {sizeLimit: 256Mi}
{{- if .Values.kubernetesTokens }}
- name: doorward-service-account
  projected:
    defaultMode: 0440
    sources:
      - serviceAccountToken: {path: token, expirationSeconds: 3600}
      - configMap: {name: kube-root-ca.crt, items: [{key: ca.crt, path: ca.crt}]}
{{- end }}
{{- end -}}

{{/* doorward.podMeta are a pod's annotations: a digest of what needs a restart. */}}
{{- define "doorward.podAnnotations" -}}
{{- if not .Values.existingConfigMap }}
doorward.example.com/restart-on: {{ include "doorward.restartOn" . | quote }}
{{- end }}
{{- with .Values.podAnnotations }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* doorward.placement says where pods may run. */}}
{{- define "doorward.placement" -}}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - {name: {{ . }}}
  {{- end }}
{{- end }}
{{- end -}}
