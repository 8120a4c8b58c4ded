{{/* All objects of a pipeline: one line of a chart that has this one as its dependency `base`. */}}
{{- define "pipeline.all" -}}
{{- $parts := dict "root" . "values" (include "pipeline.values" . | fromYaml) -}}
{{- include "pipeline.check" $parts -}}
{{ include "pipeline.definition" $parts }}
---
{{ include "pipeline.deployment" $parts }}
{{- if $parts.values.autoscaling.enabled }}
---
{{ include "pipeline.scaledobject" $parts }}
{{- end }}
{{- end -}}

{{/* The scheduler finds the definition by the label. Its placeholders are data here, not Helm's. */}}
{{- define "pipeline.definition" -}}
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ .root.Release.Name }}-pipeline
  labels:
    {{- include "pipeline.labels" .root | nindent 4 }}
    workload-scheduler/pipeline: "true"
data:
  pipeline.yaml: |
    {{- dict "pipeline" .values.pipeline "params" .values.params | toYaml | nindent 4 }}
{{- end -}}

{{- define "pipeline.scaledobject" -}}
{{- $v := .values -}}
apiVersion: keda.sh/v1alpha1
kind: ScaledObject
metadata:
  name: {{ .root.Release.Name }}
  labels:
    {{- include "pipeline.labels" .root | nindent 4 }}
spec:
  scaleTargetRef:
    name: {{ .root.Release.Name }}
    envSourceContainerName: pipeline-agent
  minReplicaCount: {{ int $v.replicas.min }}
  maxReplicaCount: {{ int $v.replicas.max }}
  pollingInterval: {{ int $v.autoscaling.pollingIntervalSeconds }}
  cooldownPeriod: {{ int $v.autoscaling.cooldownSeconds }}
  advanced:
    horizontalPodAutoscalerConfig:
      behavior:
        scaleUp:
          stabilizationWindowSeconds: 0
        scaleDown:
          stabilizationWindowSeconds: {{ int $v.autoscaling.cooldownSeconds }}
  triggers:
    # The scheduler says how many workers are needed, and at once when there is work at all.
    - type: external-push
      metadata:
        scalerAddress: {{ trimPrefix "http://" $v.scheduler.url | quote }}
        application: {{ $v.scheduler.application | default .root.Release.Namespace | quote }}
        pipeline: {{ $v.scheduler.pipeline | default .root.Release.Name | quote }}
        concurrency: {{ int $v.concurrency | quote }}
        targetSeconds: {{ $v.autoscaling.targetSeconds | toString | quote }}
        taskSeconds: {{ $v.autoscaling.taskSeconds | toString | quote }}
        {{- if $v.scheduler.apiKeySecret }}
        apiKeyFromEnv: SCHEDULER_API_KEY
        {{- end }}
{{- end -}}
