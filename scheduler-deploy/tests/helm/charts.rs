//! Charts as people write them.

/// A worker with an agent and one executor.
pub(crate) const WORKER: &str = "\
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ .Release.Name }}
spec:
  replicas: {{ .Values.replicas }}
  selector: {matchLabels: {app: {{ .Release.Name }}}}
  template:
    metadata: {labels: {app: {{ .Release.Name }}}}
    spec:
      containers:
      - name: agent
        image: {{ .Values.image }}
        env: [{name: PIPELINE_AGENT__NAME, value: {{ .Release.Name }}}]
      - name: executor
        image: {{ .Values.image }}
";

/// The values that it has.
pub(crate) const VALUES: &str = "replicas: 2\nimage: worker:1\n";

/// A definition that has to be rendered, and text that only looks like a template.
pub(crate) const DEFINITION: &str = "\
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ .Release.Name }}-pipeline
  labels: {workload-scheduler/pipeline: \"true\"}
data:
  pipeline.yaml: |
    pipeline:
    - executor: {{ .Values.image | replace \":\" \"-\" }}
      commands: [\"echo {{`{{text}}`}}\"]
";

/// The files of a whole chart.
pub(crate) const FILES: [(&str, &str); 3] = [
    ("values.yaml", VALUES),
    ("templates/worker.yaml", WORKER),
    ("templates/pipeline.yaml", DEFINITION),
];
