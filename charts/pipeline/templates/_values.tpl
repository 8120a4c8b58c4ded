{{/*
The values that count, as YAML. A chart that has this one as its dependency `base` writes its values at the top, and the defaults are here.
A scheduler that deploys the chart says itself, in global.scheduler, where it is, which pipeline this is, and how many workers there are to be.
*/}}
{{- define "pipeline.values" -}}
{{- $values := deepCopy .Values -}}
{{- if hasKey .Values "base" -}}
{{- $values = mergeOverwrite (deepCopy .Values.base) (omit .Values "base" "global") -}}
{{- end -}}
{{- with (.Values.global).scheduler -}}
{{- $told := pick . "url" "application" "pipeline" -}}
{{- with .apiKeySecret -}}
{{- $told = set $told "apiKeySecret" .name -}}
{{- end -}}
{{- $values = mergeOverwrite $values (dict "scheduler" $told "replicas" (.replicas | default dict)) -}}
{{- end -}}
{{- $values | toYaml -}}
{{- end -}}

{{/* Refuses what a schema cannot: steps and executors have to fit. */}}
{{- define "pipeline.check" -}}
{{- $v := .values -}}
{{- if not $v.pipeline -}}
{{- fail "pipeline: has no steps; give each an executor and commands, as in the chart's values.yaml" -}}
{{- end -}}
{{- $names := list -}}
{{- range $index, $executor := $v.executors -}}
{{- if not (kindIs "map" $executor) -}}
{{- fail (printf "executors[%d]: must be a map of name and image" $index) -}}
{{- end -}}
{{- if not $executor.name -}}
{{- fail (printf "executors[%d].name: is missing" $index) -}}
{{- end -}}
{{- if not $executor.image -}}
{{- fail (printf "executors[%d].image: is missing; %s needs an image with its tool and a shell" $index $executor.name) -}}
{{- end -}}
{{- if has $executor.name $names -}}
{{- fail (printf "executors[%d].name: %s is there twice" $index $executor.name) -}}
{{- end -}}
{{- $names = append $names $executor.name -}}
{{- end -}}
{{- range $index, $step := $v.pipeline -}}
{{- $name := $step.executor | default $step.executorName -}}
{{- if not (has $name $names) -}}
{{- fail (printf "pipeline[%d].executor: %v is none of the executors (%s)" $index $name (join ", " $names)) -}}
{{- end -}}
{{- end -}}
{{- if gt (int $v.replicas.min) (int $v.replicas.max) -}}
{{- fail (printf "replicas.min: is %d; must not be more than replicas.max, %d" (int $v.replicas.min) (int $v.replicas.max)) -}}
{{- end -}}
{{- end -}}

{{- define "pipeline.labels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/* What a step's shell sees of the pod's environment: a map, or a list as Kubernetes writes it. */}}
{{- define "pipeline.env" -}}
{{- if kindIs "map" . -}}
{{- range $name, $value := . }}
- name: {{ $name }}
  value: {{ $value | toString | quote }}
{{- end -}}
{{- else if . }}
{{ toYaml . }}
{{- end -}}
{{- end -}}
