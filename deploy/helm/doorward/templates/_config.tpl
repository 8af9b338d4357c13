{{/*
doorward.config is the configuration as it is mounted: the values, with what the
pod has to agree with filled in. A contradiction ends the installation instead of
a probe that never answers.
*/}}
{{- define "doorward.config" -}}
{{- $config := deepCopy .Values.config -}}
{{- $server := $config.server | default dict -}}
{{- $admin := $server.admin | default dict -}}
{{- $listen := printf ":%s" (include "doorward.port" .) -}}
{{- if and $server.listen (ne $server.listen $listen) -}}
{{- fail (printf "config.server.listen is %s and the pod's port is %s: leave the key out, or set ports.visitors" $server.listen $listen) -}}
{{- end -}}
{{- $adminListen := printf ":%v" .Values.ports.admin -}}
{{- if and $admin.listen (ne $admin.listen $adminListen) -}}
{{- fail (printf "config.server.admin.listen is %s and the probes ask %s: leave the key out, or set ports.admin" $admin.listen $adminListen) -}}
{{- end -}}
{{- if $server.drain_timeout -}}
{{- fail "config.server.drain_timeout: set drainSeconds instead, from which the pod's grace period follows" -}}
{{- end -}}
{{- $_ := set $admin "listen" $adminListen -}}
{{- $_ := set $server "listen" $listen -}}
{{- $_ := set $server "admin" $admin -}}
{{- $_ := set $server "drain_timeout" (printf "%vs" .Values.drainSeconds) -}}
{{- $_ := set $config "server" $server -}}
{{- if not $config.version }}{{ $_ := set $config "version" 1 }}{{ end -}}
{{- toYaml $config -}}
{{- end -}}

{{/*
doorward.restartOn is a digest of what Doorward reads at start only: what it
warns about in its log as "takes effect at the next start". Everything else is
loaded as it changes, so it must not restart pods and cut streams off.
*/}}
{{- define "doorward.restartOn" -}}
{{- $config := .Values.config -}}
{{- $server := $config.server | default dict -}}
{{- $parts := dict "sessions" $config.sessions "audit" $config.audit "log" $config.log "tls" (empty $server.tls | not) -}}
{{- $parts := merge $parts (pick $server "read_header_timeout" "idle_timeout" "max_header_bytes") -}}
{{- $parts := set $parts "hosts" (dig "admin" "hosts" list $server) -}}
{{- $parts := set $parts "ports" (list (include "doorward.port" .) .Values.ports.admin) -}}
{{- $parts | toJson | sha256sum | trunc 16 -}}
{{- end -}}

{{/* doorward.sharesLogins is "yes" unless the configuration is known to keep them in each pod. */}}
{{- define "doorward.sharesLogins" -}}
{{- if .Values.existingConfigMap }}yes{{ else if dig "sessions" "store" "redis" nil .Values.config }}yes{{ end -}}
{{- end -}}
