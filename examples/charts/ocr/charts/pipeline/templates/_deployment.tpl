{{- define "pipeline.deployment" -}}
{{- $v := .values -}}
{{- $root := .root -}}
{{- $inject := false -}}
{{- range $v.executors -}}
{{- if ne .inject false -}}{{- $inject = true -}}{{- end -}}
{{- end -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ $root.Release.Name }}
  labels:
    {{- include "pipeline.labels" $root | nindent 4 }}
spec:
  {{- if not $v.autoscaling.enabled }}
  replicas: {{ int $v.replicas.min }}
  {{- end }}
  progressDeadlineSeconds: {{ int $v.progressDeadlineSeconds }}
  selector:
    matchLabels:
      {{- include "pipeline.labels" $root | nindent 6 }}
  template:
    metadata:
      labels:
        {{- include "pipeline.labels" $root | nindent 8 }}
        {{- with $v.podLabels }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- with $v.podAnnotations }}
      annotations:
        {{- toYaml . | nindent 8 }}
      {{- end }}
    spec:
      automountServiceAccountToken: false
      {{- with $v.serviceAccountName }}
      serviceAccountName: {{ . }}
      {{- end }}
      # The agent ends its tasks first, then the executors go.
      terminationGracePeriodSeconds: {{ add (int $v.drainSeconds) 15 }}
      securityContext:
        {{- toYaml $v.podSecurityContext | nindent 8 }}
      {{- with $v.imagePullSecrets }}
      imagePullSecrets:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $v.nodeSelector }}
      nodeSelector:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $v.tolerations }}
      tolerations:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $v.affinity }}
      affinity:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      initContainers:
        {{- if $inject }}
        # Puts the executor where the tools' containers find it, so that their images need nothing but the tool and a shell.
        - name: install-executor
          image: {{ $v.images.executor | quote }}
          imagePullPolicy: {{ $v.images.pullPolicy }}
          args: [--install, /executor/command-executor]
          resources:
            {{- toYaml $v.agent.resources | nindent 12 }}
          securityContext:
            allowPrivilegeEscalation: false
            readOnlyRootFilesystem: true
            capabilities: { drop: [ALL] }
          volumeMounts:
            - name: executor
              mountPath: /executor
        {{- end }}
        {{- range $index, $executor := $v.executors }}
        # It runs beside the agent, from before it begins until after it has ended.
        - name: executor-{{ $executor.name }}
          restartPolicy: Always
          image: {{ $executor.image | quote }}
          imagePullPolicy: {{ $v.images.pullPolicy }}
          {{- if ne $executor.inject false }}
          command: [/executor/command-executor]
          {{- end }}
          env:
            - name: COMMAND_EXECUTOR_NAME
              value: {{ $executor.name | quote }}
            - name: COMMAND_EXECUTOR_SERVER_GRPC_PORT
              value: ":{{ add 50051 $index }}"
            {{- include "pipeline.env" $executor.env | nindent 12 }}
          {{- with $executor.envFrom }}
          envFrom:
            {{- toYaml . | nindent 12 }}
          {{- end }}
          ports:
            - name: executor-{{ $index }}
              containerPort: {{ add 50051 $index }}
          startupProbe:
            tcpSocket: { port: executor-{{ $index }} }
            periodSeconds: 1
            failureThreshold: 60
          resources:
            {{- toYaml ($executor.resources | default $v.executorResources) | nindent 12 }}
          securityContext:
            allowPrivilegeEscalation: false
            capabilities: { drop: [ALL] }
          volumeMounts:
            - name: pipe
              mountPath: /mnt/pipe
            {{- if ne $executor.inject false }}
            - name: executor
              mountPath: /executor
              readOnly: true
            {{- end }}
            {{- with $executor.volumeMounts }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
        {{- end }}
      containers:
        - name: pipeline-agent
          image: {{ $v.images.agent | quote }}
          imagePullPolicy: {{ $v.images.pullPolicy }}
          env:
            # The pod's name: what the scheduler shows of its workers.
            - name: PIPELINE_AGENT__NAME
              valueFrom: { fieldRef: { fieldPath: metadata.name } }
            {{- range $index, $executor := $v.executors }}
            - name: PIPELINE_AGENT__EXECUTORS__{{ $index }}__NAME
              value: {{ $executor.name | quote }}
            - name: PIPELINE_AGENT__EXECUTORS__{{ $index }}__TARGET
              value: "127.0.0.1:{{ add 50051 $index }}"
            {{- end }}
            - name: SCHEDULER_CONCURRENCY
              value: {{ int $v.concurrency | quote }}
            - name: SCHEDULER_DRAIN_SECONDS
              value: {{ int $v.drainSeconds | quote }}
            # Not 80: that is for root.
            - name: SCHEDULER_WORKER_HTTP
              value: ":8080"
            - name: SCHEDULER_URL
              value: {{ $v.scheduler.url | quote }}
            - name: SCHEDULER_APPLICATION
              value: {{ $v.scheduler.application | default $root.Release.Namespace | quote }}
            - name: SCHEDULER_PIPELINE
              value: {{ $v.scheduler.pipeline | default $root.Release.Name | quote }}
            {{- with $v.scheduler.apiKeySecret }}
            - name: SCHEDULER_API_KEY
              valueFrom: { secretKeyRef: { name: {{ . }}, key: api-key } }
            {{- end }}
            {{- include "pipeline.env" $v.agent.env | nindent 12 }}
          ports:
            - name: http
              containerPort: 8080
          livenessProbe:
            httpGet: { path: /healthz, port: http }
          readinessProbe:
            httpGet: { path: /ready, port: http }
          resources:
            {{- toYaml $v.agent.resources | nindent 12 }}
          securityContext:
            allowPrivilegeEscalation: false
            readOnlyRootFilesystem: true
            capabilities: { drop: [ALL] }
          volumeMounts:
            - name: pipe
              mountPath: /mnt/pipe
      volumes:
        - name: pipe
          emptyDir: { sizeLimit: {{ $v.workspace.sizeLimit }} }
        {{- if $inject }}
        - name: executor
          emptyDir: { sizeLimit: 64Mi }
        {{- end }}
        {{- with $v.volumes }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
{{- end -}}
