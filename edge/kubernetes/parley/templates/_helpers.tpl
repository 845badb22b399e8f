{{- define "parley.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "parley.selector" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "parley.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{ include "parley.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- define "parley.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "parley.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "parley.image" -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}

{{- define "parley.edgeImage" -}}
{{- $own := .Values.edge.image -}}
{{- printf "%s:%s" (default .Values.image.repository $own.repository) (default (default .Chart.AppVersion .Values.image.tag) $own.tag) -}}
{{- end -}}

{{- define "parley.checkedConfig" -}}
{{- $config := fromYaml .Values.config -}}
{{- if hasKey $config "Error" -}}
{{- fail (printf "config is not YAML: %s" $config.Error) -}}
{{- end -}}
{{- if ne (dig "store" "kind" "" $config) "postgres" -}}
{{- fail "config: the workers share one database; set store: {kind: postgres, url: \"${PARLEY_DATABASE_URL}\"}" -}}
{{- end -}}
{{- .Values.config -}}
{{- end -}}

{{- define "parley.configMap" -}}
{{- default (include "parley.fullname" .) .Values.existingConfigMap -}}
{{- end -}}

{{- define "parley.databaseSecret" -}}
{{- if .Values.database.url -}}
{{- include "parley.fullname" . }}-database
{{- else -}}
{{- required "set database.existingSecret or database.url" .Values.database.existingSecret -}}
{{- end -}}
{{- end -}}

{{/* What a worker and the migration read: the configuration and the variables in it. A dict: root, suffix. */}}
{{- define "parley.environment" -}}
{{- $root := .root -}}
env:
  - {name: PARLEY_CONFIG, value: /etc/parley/parley.yaml}
  - {name: PARLEY_STATE_DIR, value: /var/lib/parley}
  - name: PARLEY_DATABASE_URL
    valueFrom:
      secretKeyRef:
        name: {{ include "parley.databaseSecret" $root }}{{ if $root.Values.database.url }}{{ .suffix }}{{ end }}
        key: {{ $root.Values.database.key }}
  {{- with $root.Values.worker.env }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- if or $root.Values.secrets.values $root.Values.secrets.existing }}
envFrom:
  {{- if $root.Values.secrets.values }}
  - secretRef: {name: {{ include "parley.fullname" $root }}{{ .suffix }}}
  {{- end }}
  {{- range $root.Values.secrets.existing }}
  - secretRef: {name: {{ . }}}
  {{- end }}
{{- end }}
{{- end -}}

{{- define "parley.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{/* The chart's Secrets and ConfigMap. A dict: root, suffix, annotations. */}}
{{- define "parley.inputs" -}}
{{- $root := .root -}}
{{- if not $root.Values.existingConfigMap }}
---
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ include "parley.fullname" $root }}{{ .suffix }}
  labels: {{- include "parley.labels" $root | nindent 4 }}
  {{- with .annotations }}
  annotations: {{- toYaml . | nindent 4 }}
  {{- end }}
data:
  parley.yaml: |
    {{- include "parley.checkedConfig" $root | nindent 4 }}
{{- end }}
{{- if $root.Values.database.url }}
---
apiVersion: v1
kind: Secret
metadata:
  name: {{ include "parley.databaseSecret" $root }}{{ .suffix }}
  labels: {{- include "parley.labels" $root | nindent 4 }}
  {{- with .annotations }}
  annotations: {{- toYaml . | nindent 4 }}
  {{- end }}
stringData:
  {{ $root.Values.database.key }}: {{ $root.Values.database.url | quote }}
{{- end }}
{{- if $root.Values.secrets.values }}
---
apiVersion: v1
kind: Secret
metadata:
  name: {{ include "parley.fullname" $root }}{{ .suffix }}
  labels: {{- include "parley.labels" $root | nindent 4 }}
  {{- with .annotations }}
  annotations: {{- toYaml . | nindent 4 }}
  {{- end }}
stringData:
  {{- range $name, $value := $root.Values.secrets.values }}
  {{ $name }}: {{ $value | quote }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* The scheduling of a component's pods. A dict: root, component, own. */}}
{{- define "parley.scheduling" -}}
serviceAccountName: {{ include "parley.serviceAccount" .root }}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext: {{- toYaml .root.Values.podSecurityContext | nindent 2 }}
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- with .own.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .own.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .own.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .own.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
topologySpreadConstraints:
{{- if .own.topologySpreadConstraints }}
{{- toYaml .own.topologySpreadConstraints | nindent 2 }}
{{- else }}
  {{- $selector := include "parley.selector" .root }}
  {{- $component := .component }}
  {{- range list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: ScheduleAnyway
    matchLabelKeys: [pod-template-hash]
    labelSelector:
      matchLabels:
        {{- $selector | nindent 8 }}
        app.kubernetes.io/component: {{ $component }}
  {{- end }}
{{- end }}
{{- end -}}
