//! Charts that want more than they may have: each is refused by its rule, and leaves nothing behind.

use scheduler_core::port::deploy::{DeployError, Deployer as _};

use crate::charts::{FILES, VALUES, WORKER};
use crate::world::{World, until_deployed, write};

/// A pod's template with something in its spec, and in its container.
fn pod(spec: &str, container: &str) -> String {
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: evil}}\nspec:\n  selector: {{matchLabels: {{a: b}}}}\n  \
         template:\n    metadata: {{labels: {{a: b}}}}\n    spec:\n      {spec}\n      containers:\n      - name: c\n        \
         image: i\n        {container}\n"
    )
}

fn object(api_version: &str, kind: &str, rest: &str) -> String {
    format!("apiVersion: {api_version}\nkind: {kind}\nmetadata: {{name: evil}}\n{rest}\n")
}

/// A name, the hostile template, and what the refusal says.
#[expect(clippy::too_many_lines, reason = "a table")]
fn hostile() -> Vec<(&'static str, String, &'static [&'static str])> {
    const RBAC: &str = "rbac.authorization.k8s.io/v1";
    let context = |context: &str| pod("hostname: a", &format!("securityContext: {context}"));
    let spec = |spec: &str| pod(spec, "tty: false");
    vec![
        ("cluster-role", object(RBAC, "ClusterRole", "rules: []"), &["ClusterRole/evil", "cluster-scope"]),
        (
            "cluster-role-binding",
            object(RBAC, "ClusterRoleBinding", "roleRef: {kind: ClusterRole, name: cluster-admin, apiGroup: rbac.authorization.k8s.io}"),
            &["ClusterRoleBinding/evil", "cluster-scope"],
        ),
        ("namespace", object("v1", "Namespace", ""), &["Namespace/evil", "cluster-scope"]),
        (
            "webhook",
            object("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration", "webhooks: []"),
            &["MutatingWebhookConfiguration/evil", "cluster-scope"],
        ),
        ("volume-of-the-cluster", object("v1", "PersistentVolume", "spec: {}"), &["PersistentVolume/evil", "cluster-scope"]),
        ("role", object(RBAC, "Role", "rules: []"), &["Role/evil", "breaks kind"]),
        ("role-binding", object(RBAC, "RoleBinding", ""), &["RoleBinding/evil", "breaks kind"]),
        ("daemon-set", object("apps/v1", "DaemonSet", ""), &["DaemonSet/evil", "breaks kind"]),
        ("job", object("batch/v1", "Job", ""), &["Job/evil", "breaks kind"]),
        ("ingress", object("networking.k8s.io/v1", "Ingress", ""), &["Ingress/evil", "breaks kind"]),
        ("network-policy", object("networking.k8s.io/v1", "NetworkPolicy", ""), &["NetworkPolicy/evil", "breaks kind"]),
        ("quota", object("v1", "ResourceQuota", ""), &["ResourceQuota/evil", "breaks kind"]),
        // A kind of the same name in a group of somebody's own.
        ("other-group", object("evil.example/v1", "Deployment", ""), &["Deployment/evil", "breaks kind"]),
        (
            "other-namespace",
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: evil, namespace: kube-system}\n".to_owned(),
            &["ConfigMap/evil", "breaks namespace", "kube-system"],
        ),
        (
            "hook",
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: evil, annotations: {helm.sh/hook: pre-install}}\n".to_owned(),
            &["ConfigMap/evil", "breaks hook", "pre-install"],
        ),
        // Only what nothing but tests run is left out.
        (
            "hook-among-tests",
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: evil, annotations: {helm.sh/hook: 'test,post-delete'}}\n".to_owned(),
            &["ConfigMap/evil", "breaks hook"],
        ),
        ("privileged", context("{privileged: true}"), &["Deployment/evil", "breaks privileged", "container c"]),
        // What one reader of YAML takes for a text, and another for `true`.
        ("privileged-yes", context("{privileged: yes}"), &["Deployment/evil", "breaks privileged"]),
        ("escalation", context("{allowPrivilegeEscalation: true}"), &["breaks privilege-escalation"]),
        ("capabilities", context("{capabilities: {add: [SYS_ADMIN]}}"), &["breaks capabilities", "SYS_ADMIN"]),
        ("proc-mount", context("{procMount: Unmasked}"), &["breaks proc-mount"]),
        ("seccomp", context("{seccompProfile: {type: Unconfined}}"), &["breaks seccomp"]),
        ("selinux", context("{seLinuxOptions: {type: spc_t}}"), &["breaks selinux"]),
        ("host-port", pod("hostname: a", "ports: [{containerPort: 80, hostPort: 80}]"), &["breaks host-port"]),
        ("host-network", spec("hostNetwork: true"), &["breaks host-network"]),
        ("host-processes", spec("hostPID: true"), &["breaks host-processes"]),
        ("host-ipc", spec("hostIPC: true"), &["breaks host-ipc"]),
        ("host-path", spec("volumes: [{name: v, hostPath: {path: /var/run}}]"), &["breaks host-path", "/var/run"]),
        ("nfs", spec("volumes: [{name: v, nfs: {server: s, path: /}}]"), &["breaks volume-type", "nfs"]),
        ("csi", spec("volumes: [{name: v, csi: {driver: d}}]"), &["breaks volume-type", "csi"]),
        ("node-name", spec("nodeName: control-plane"), &["breaks node-name"]),
        ("priority", spec("priorityClassName: system-node-critical"), &["breaks priority-class"]),
        ("sysctls", spec("securityContext: {sysctls: [{name: kernel.msgmax, value: '1'}]}"), &["breaks sysctls"]),
        ("account", spec("serviceAccountName: workload-scheduler-deployer"), &["breaks service-account"]),
        (
            "init-container",
            spec("initContainers: [{name: i, image: i, securityContext: {privileged: true}}]"),
            &["breaks privileged", "container i"],
        ),
        ("token", object("v1", "Secret", "type: kubernetes.io/service-account-token"), &["Secret/evil", "breaks secret-type"]),
        (
            "our-secret",
            "apiVersion: v1\nkind: Secret\nmetadata: {name: workload-scheduler-api-key}\n".to_owned(),
            &["breaks reserved"],
        ),
        (
            "release-of-another",
            "apiVersion: v1\nkind: Secret\nmetadata: {name: sh.helm.release.v1.other.v1}\n".to_owned(),
            &["breaks reserved"],
        ),
        (
            "our-account",
            "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: workload-scheduler-deployer}\n".to_owned(),
            &["breaks reserved"],
        ),
        ("node-port", object("v1", "Service", "spec: {type: NodePort}"), &["breaks service-type", "NodePort"]),
        ("load-balancer", object("v1", "Service", "spec: {type: LoadBalancer}"), &["breaks service-type"]),
        (
            "external-name",
            object("v1", "Service", "spec: {type: ExternalName, externalName: metadata.google.internal}"),
            &["breaks service-type"],
        ),
        ("external-ips", object("v1", "Service", "spec: {externalIPs: [10.0.0.1]}"), &["breaks external-ips"]),
        (
            "in-a-list",
            "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Namespace, metadata: {name: evil}}\n".to_owned(),
            &["Namespace/evil", "cluster-scope"],
        ),
        (
            "cluster-credentials",
            object(
                "keda.sh/v1alpha1",
                "ScaledObject",
                "spec: {triggers: [{type: x, authenticationRef: {kind: ClusterTriggerAuthentication, name: a}}]}",
            ),
            &["ScaledObject/evil", "cluster-scope"],
        ),
        ("twice", object("v1", "ConfigMap", "kind: Namespace"), &["Namespace/evil", "cluster-scope"]),
        ("no-object", "just: text\n".to_owned(), &["without apiVersion"]),
        (
            "many",
            "{{ range until 200 }}\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: c{{ . }}}\n{{ end }}".to_owned(),
            &["more than 100 objects"],
        ),
        (
            "huge",
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: evil}\ndata: {a: {{ repeat 4000000 \"a\" }}}".to_owned(),
            &["cannot be rendered", "more than 1048576 bytes"],
        ),
        (
            "greedy",
            "{{ $a := list }}{{ range until 3000 }}{{ $a = append $a (repeat 4000000 \"a\") }}{{ end }}".to_owned(),
            &["cannot be rendered"],
        ),
        ("broken", "{{ fail \"not today\" }}".to_owned(), &["cannot be rendered", "not today"]),
        ("nothing", "{{/* nothing */}}".to_owned(), &["no object would be created"]),
    ]
}

#[tokio::test]
async fn each_hostile_chart_is_refused_by_its_rule_and_leaves_nothing() {
    let world = World::new().await;
    let deployer = world.deployer().await;
    let hostile = hostile();
    assert!(hostile.len() >= 20);
    for (name, template, says) in hostile {
        let chart = world.chart(name, &[("templates/evil.yaml", &template)]);
        let wanted = world.wanted("ocr", &chart);
        let refused = deployer
            .inspect(&wanted.path, &wanted.deployment.clone().into())
            .await;
        let Err(DeployError::Invalid { field, problem }) = refused else {
            panic!("{name} is {refused:?}");
        };
        assert_eq!(field, "chart", "{name}");
        for word in says {
            assert!(problem.contains(word), "{name}: {problem}");
        }
        // Where the copy lay is nobody's business.
        assert!(
            !problem.contains(world.directory.path().to_str().unwrap()),
            "{name}: {problem}"
        );
    }
    assert!(world.namespaces().await.is_empty());
    assert!(world.copies().is_empty(), "{:?}", world.copies());
}

#[tokio::test]
async fn what_hides_in_other_places_of_a_chart_is_found() {
    let world = World::new().await;
    let deployer = world.deployer().await;
    let namespace = object("v1", "Namespace", "");
    let definition = object("apiextensions.k8s.io/v1", "CustomResourceDefinition", "spec: {}");
    let refused = async |chart: &str| {
        let wanted = world.wanted("ocr", chart);
        let error = deployer
            .inspect(&wanted.path, &wanted.deployment.clone().into())
            .await
            .unwrap_err();
        error.to_string()
    };
    let chart = world.chart(
        "crds",
        &[
            ("crds/evil.yaml", &definition),
            ("templates/w.yaml", WORKER),
            ("values.yaml", VALUES),
        ],
    );
    let problem = refused(&chart).await;
    assert!(
        problem.contains("CustomResourceDefinition/evil breaks cluster-scope"),
        "{problem}"
    );

    let subchart = "apiVersion: v2\nname: sub\nversion: 0.1.0\n";
    let chart = world.chart(
        "sub",
        &[
            ("charts/sub/Chart.yaml", subchart),
            ("charts/sub/templates/evil.yaml", &namespace),
        ],
    );
    let problem = refused(&chart).await;
    assert!(
        problem.contains("Namespace/evil breaks cluster-scope"),
        "{problem}"
    );

    let chart = world.chart("dependency", &[]);
    let about = "apiVersion: v2\nname: dependency\nversion: 0.1.0\ndependencies: [{name: x, version: 1.0.0, repository: 'https://evil.example'}]\n";
    write(chart.as_ref(), "Chart.yaml", about);
    let problem = refused(&chart).await;
    assert!(
        problem.contains("cannot be rendered") && problem.contains("missing in charts/"),
        "{problem}"
    );

    // Only files of the chart are read, by us and by templates.
    let chart = world.chart("link", &FILES);
    std::os::unix::fs::symlink("/etc/passwd", format!("{chart}/templates/passwd.yaml")).unwrap();
    let problem = refused(&chart).await;
    assert!(
        problem.contains("templates/passwd.yaml is a symbolic link"),
        "{problem}"
    );

    let chart = world.chart("library", &FILES);
    write(
        chart.as_ref(),
        "Chart.yaml",
        "apiVersion: v2\nname: library\nversion: 0.1.0\ntype: library\n",
    );
    let problem = refused(&chart).await;
    assert!(problem.contains("library"), "{problem}");
    assert!(world.namespaces().await.is_empty() && world.copies().is_empty());
}

#[tokio::test]
async fn a_chart_that_renders_otherwise_where_it_sees_a_cluster_gets_what_was_checked() {
    let world = World::new().await;
    let deployer = world.deployer().await;
    // As it is checked there is no cluster to look into; as helm installs it there would be one.
    let sly = WORKER.replace(
        "    spec:\n",
        "    spec:\n{{ if lookup \"v1\" \"Namespace\" \"\" \"kube-system\" }}\n      hostNetwork: true\n{{ end }}\n",
    );
    let chart = world.chart("sly", &[("values.yaml", VALUES), ("templates/worker.yaml", &sly)]);
    let wanted = world.wanted("sly", &chart);
    deployer.apply(wanted.clone()).await.unwrap();
    until_deployed(&deployer, wanted.pipeline).await;
    let worker = world.object("apps/v1", "Deployment", "sly").await;
    assert!(worker.data["spec"]["template"]["spec"]["hostNetwork"].is_null());
    deployer.remove(wanted.pipeline, &wanted.path).await.unwrap();
}

#[tokio::test]
async fn what_the_operator_allows_is_taken() {
    let mut world = World::new().await;
    world.config.policy.kinds = vec!["batch/Job".to_owned()];
    world.config.policy.privileged = true;
    let deployer = world.deployer().await;
    let spec =
        "template: {spec: {hostNetwork: true, restartPolicy: Never, containers: [{name: a, image: a}]}}";
    let job = object("batch/v1", "Job", &format!("spec: {{{spec}}}"));
    let chart = world.chart("job", &[("templates/job.yaml", &job)]);
    let wanted = world.wanted("job", &chart);
    let facts = deployer
        .inspect(&wanted.path, &wanted.deployment.clone().into())
        .await
        .unwrap();
    assert_eq!(facts.objects, ["Job/evil"]);
}
