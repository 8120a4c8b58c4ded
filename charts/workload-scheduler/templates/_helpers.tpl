{{- define "scheduler.name" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "scheduler.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "scheduler.labels" -}}
{{ include "scheduler.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "scheduler.account" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (include "scheduler.name" .) -}}
{{- else -}}
{{- .Values.serviceAccount.name | default "default" -}}
{{- end -}}
{{- end -}}

{{/* Refuses what a schema cannot: values that only make sense together. */}}
{{- define "scheduler.check" -}}
{{- if .Values.kafka.brokers -}}
{{- if not .Values.tidb.urlSecret -}}
{{- fail "tidb.urlSecret: is missing; with kafka.brokers it must name the Secret with the URL of TiDB" -}}
{{- end -}}
{{- if not .Values.cluster.secret -}}
{{- fail "cluster.secret: is missing; with kafka.brokers it must name the Secret with what nodes show each other" -}}
{{- end -}}
{{- else -}}
{{- if .Values.tidb.urlSecret -}}
{{- fail "kafka.brokers: is missing; with tidb.urlSecret it must say where Kafka is" -}}
{{- end -}}
{{- if gt (int .Values.replicas) 1 -}}
{{- fail (printf "replicas: is %d; a node with a volume is alone, more need kafka.brokers and tidb.urlSecret" (int .Values.replicas)) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* NAME=VALUE with commas between them, the files of the TLS Secret and the secret ones among them. */}}
{{- define "scheduler.kafkaProperties" -}}
{{- $all := list -}}
{{- range $name, $value := .Values.kafka.properties -}}
{{- $all = append $all (printf "%s=%s" $name (toString $value)) -}}
{{- end -}}
{{- if .Values.kafka.tlsSecret -}}
{{- $all = append $all "ssl.ca.location=/etc/workload-scheduler/kafka/ca.crt" -}}
{{- if .Values.kafka.clientCertificate -}}
{{- $all = append $all "ssl.certificate.location=/etc/workload-scheduler/kafka/tls.crt" -}}
{{- $all = append $all "ssl.key.location=/etc/workload-scheduler/kafka/tls.key" -}}
{{- end -}}
{{- end -}}
{{- if .Values.kafka.propertiesSecret -}}
{{- $all = append $all "$(KAFKA_SECRET_PROPERTIES)" -}}
{{- end -}}
{{- join "," $all -}}
{{- end -}}

{{- define "scheduler.topicSettings" -}}
{{- $all := list -}}
{{- range $name, $value := .Values.kafka.topicSettings -}}
{{- $all = append $all (printf "%s=%s" $name (toString $value)) -}}
{{- end -}}
{{- join "," $all -}}
{{- end -}}
