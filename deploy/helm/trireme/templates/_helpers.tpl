{{- define "trireme.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "trireme.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- $name := include "trireme.name" . -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* What selects the pods. Never changes over the life of a release. */}}
{{- define "trireme.selector" -}}
app.kubernetes.io/name: {{ include "trireme.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "trireme.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{ include "trireme.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- define "trireme.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "trireme.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "trireme.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{/* Seconds from SIGTERM to SIGKILL: longer than the server's own drain, or Kubernetes would cut it. */}}
{{- define "trireme.grace" -}}
{{- add .Values.server.drainDelaySeconds .Values.server.exitTimeoutSeconds .Values.graceMarginSeconds -}}
{{- end -}}

{{/* What a schema cannot say. */}}
{{- define "trireme.check" -}}
{{- $models := .Values.models -}}
{{- $sources := list -}}
{{- if $models.persistentVolumeClaim }}{{ $sources = append $sources "persistentVolumeClaim" }}{{ end -}}
{{- if $models.initContainer.enabled }}{{ $sources = append $sources "initContainer" }}{{ end -}}
{{- if $models.url }}{{ $sources = append $sources "url" }}{{ end -}}
{{- if $models.inImage }}{{ $sources = append $sources "inImage" }}{{ end -}}
{{- if ne (len $sources) 1 -}}
{{- fail (printf "models: give exactly one of persistentVolumeClaim, initContainer.enabled, url and inImage (given: %s)" (default "none" (join ", " $sources))) -}}
{{- end -}}
{{- if and $models.initContainer.enabled (not $models.initContainer.image) -}}
{{- fail "models.initContainer.image: the init container needs an image" -}}
{{- end -}}
{{- if and (eq .Values.server.controlMode "explicit") (not .Values.server.loadModels) (not (has "--load-model" .Values.server.extraArgs)) -}}
{{- fail "server.loadModels: with controlMode explicit nothing is served unless models are named here (\"*\" for all)" -}}
{{- end -}}
{{- if and .Values.autoscaling.enabled .Values.keda.enabled -}}
{{- fail "autoscaling and keda: two autoscalers would fight over the replicas; switch one off" -}}
{{- end -}}
{{- if lt (int .Values.graceMarginSeconds) 5 -}}
{{- fail "graceMarginSeconds: terminationGracePeriodSeconds must be longer than drainDelaySeconds + exitTimeoutSeconds, by 5 at least" -}}
{{- end -}}
{{- if and (eq (int .Values.strategy.maxSurge) 0) (eq (int .Values.strategy.maxUnavailable) 0) -}}
{{- fail "strategy: maxSurge and maxUnavailable cannot both be 0" -}}
{{- end -}}
{{- range .Values.server.extraArgs -}}
{{- if or (hasPrefix "--exit-timeout-secs" .) (hasPrefix "--drain-delay" .) -}}
{{- fail (printf "server.extraArgs: '%s' has a value of its own (server.exitTimeoutSeconds, server.drainDelaySeconds), from which the grace period is computed" .) -}}
{{- end -}}
{{- end -}}
{{- end -}}
