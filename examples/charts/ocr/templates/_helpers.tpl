{{- define "ocr.labels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* A container beside the agent: the tool, with the directory that the steps share. */}}
{{- define "ocr.executor" -}}
- name: {{ .name }}
  image: {{ .values.image | quote }}
  imagePullPolicy: {{ .values.pullPolicy }}
  env:
    {{- toYaml .values.env | nindent 4 }}
  ports:
    - name: {{ .port }}
      containerPort: {{ .portNumber }}
  resources:
    {{- toYaml .values.resources | nindent 4 }}
  securityContext:
    allowPrivilegeEscalation: false
    capabilities: { drop: [ALL] }
  volumeMounts:
    - name: pipe
      mountPath: /mnt/pipe
{{- end }}
