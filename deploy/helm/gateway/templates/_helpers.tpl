{{- define "gateway.name" -}}
{{- contains .Chart.Name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name .Chart.Name) | trunc 50 | trimSuffix "-" -}}
{{- end }}

{{- define "gateway.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "gateway.labels" -}}
{{ include "gateway.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end }}

{{/* Time for the cluster's proxies to forget a pod that ends; it takes clients as before meanwhile. */}}
{{- define "gateway.preStopSeconds" -}}
{{ ceil .Values.config.drain.delay_seconds }}
{{- end }}

{{/*
The one place where the grace period is made: preStop, the drain's delay and window, the 5 seconds that the end of
a replica takes at most beside these, and 5 to be sure.
*/}}
{{- define "gateway.graceSeconds" -}}
{{ ceil (addf (include "gateway.preStopSeconds" .) .Values.config.drain.delay_seconds .Values.config.drain.window_seconds 5 5) }}
{{- end }}
