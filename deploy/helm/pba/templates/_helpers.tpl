{{/* Labels by which the objects of a release find each other. */}}
{{- define "pba.selector" -}}
app.kubernetes.io/name: pba
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "pba.labels" -}}
{{ include "pba.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "pba.claim" -}}
{{ .Values.volume.existingClaim | default (printf "%s-data" .Release.Name) }}
{{- end }}

{{/* What the pods of both kinds have in common, before their containers. */}}
{{- define "pba.pod" -}}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{ toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile:
    type: RuntimeDefault
{{- end }}

{{/* New settings need a new pod. */}}
{{- define "pba.podAnnotations" -}}
checksum/config: {{ .Values.config | sha256sum }}
{{- end }}

{{/* The container: of a list with the root, the image, the resources and whether it writes to the volume. */}}
{{- define "pba.container" -}}
{{- $root := index . 0 }}
{{- $image := index . 1 }}
{{- $resources := index . 2 }}
{{- $writes := index . 3 }}
{{- $tmp := and $writes $root.Values.gpu.enabled }}
name: pba
image: "{{ $image.repository }}:{{ $image.tag | default $root.Chart.AppVersion }}"
{{- with $root.Values.image.pullPolicy }}
imagePullPolicy: {{ . }}
{{- end }}
args: [serve, --config, /etc/pba/pba.toml]
ports:
  - name: http
    containerPort: 8080
  - name: metrics
    containerPort: 9090
resources: {{ toYaml $resources | nindent 2 }}
startupProbe:
  httpGet:
    path: /livez
    port: metrics
  periodSeconds: 2
  failureThreshold: 30
livenessProbe:
  httpGet:
    path: /livez
    port: metrics
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
# 503 while datasets are imported, and while the server drains.
readinessProbe:
  httpGet:
    path: /readyz
    port: metrics
  periodSeconds: 5
  timeoutSeconds: 2
  failureThreshold: 2
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
{{- if or $root.Values.tls.enabled $tmp }}
env:
  {{- if $root.Values.tls.enabled }}
  - name: PBA_TLS_CERT
    value: /etc/pba-tls/tls.crt
  - name: PBA_TLS_KEY
    value: /etc/pba-tls/tls.key
  {{- end }}
  {{- if $tmp }}
  # Trainers keep what CUDA compiles here: the rest of the image is read-only.
  - name: HOME
    value: /tmp
  {{- end }}
{{- end }}
volumeMounts:
  {{- if $root.Values.tls.enabled }}
  - name: tls
    mountPath: /etc/pba-tls
    readOnly: true
  {{- end }}
  {{- if $tmp }}
  - name: tmp
    mountPath: /tmp
  {{- end }}
  - name: config
    mountPath: /etc/pba
    readOnly: true
  - name: tokens
    mountPath: /etc/pba-tokens
    readOnly: true
  - name: data
    mountPath: /var/lib/pba
    subPath: data
    {{- if not $writes }}
    readOnly: true
    {{- end }}
  - name: data
    mountPath: /datasets
    subPath: datasets
    readOnly: true
{{- end }}

{{- define "pba.volumes" -}}
{{- if .Values.tls.enabled }}
- name: tls
  secret:
    secretName: {{ .Values.tls.secretName }}
{{- end }}
- name: config
  configMap:
    name: {{ .Release.Name }}-config
- name: tokens
  secret:
    secretName: {{ .Values.tokens.secretName }}
- name: data
  persistentVolumeClaim:
    claimName: {{ include "pba.claim" . }}
{{- end }}
