package helm

import (
	"bytes"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/v2/lint"
	"helm.sh/helm/v4/pkg/chart/v2/lint/support"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	policyv1 "k8s.io/api/policy/v1"
)

var release = Release{Name: "edge", Namespace: "access"}

// valuesOf reads a file of values.
func valuesOf(t *testing.T, name string) map[string]any {
	t.Helper()
	values, err := common.ReadValuesFile(filepath.Join("doorward", "ci", name+".yaml"))
	if err != nil {
		t.Fatal(err)
	}
	return values
}

// render renders a chart, which is loaded anew since rendering changes it.
func render(t *testing.T, dir string, values map[string]any) (*manifests, string) {
	t.Helper()
	text, notes, err := try(t, dir, values)
	if err != nil {
		t.Fatal(err)
	}
	return decode(t, text), notes
}

func try(t *testing.T, dir string, values map[string]any) ([]byte, string, error) {
	t.Helper()
	c, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	return Render(c, values, release)
}

// helm lint has nothing to say, with any of the values that the tests render.
func TestLint(t *testing.T) {
	for _, name := range []string{"standalone", "standalone-single", "sidecar"} {
		result := lint.RunAll("doorward", valuesOf(t, name), release.Namespace)
		for _, m := range result.Messages {
			if m.Severity >= support.WarningSev {
				t.Errorf("%s: %v", name, m)
			}
		}
		if len(result.Messages) == 0 || len(result.Messages) > 1 { // "icon is recommended"
			t.Errorf("%s: %v", name, result.Messages)
		}
	}
	broken := t.TempDir()
	if result := lint.RunAll(broken, nil, "x"); result.HighestSeverity != support.ErrorSev {
		t.Error("lint has nothing to say about an empty directory")
	}
}

func TestStandalone(t *testing.T) {
	m, notes := render(t, "doorward", valuesOf(t, "standalone"))
	m.verify(t, 1)
	d := one[*appsv1.Deployment](t, m)
	if d.Spec.Replicas != nil {
		t.Error("an upgrade would undo what the autoscaler decided")
	}
	if r := d.Spec.Strategy.RollingUpdate; r == nil || r.MaxUnavailable.IntVal != 0 || r.MaxSurge.IntVal != 1 {
		t.Errorf("a rollout leaves fewer pods: %+v", d.Spec.Strategy)
	}
	if h := one[*autoscalingv2.HorizontalPodAutoscaler](t, m); h.Spec.ScaleTargetRef.Name != d.Name || *h.Spec.MinReplicas != 3 {
		t.Errorf("%+v", h.Spec)
	}
	if b := one[*policyv1.PodDisruptionBudget](t, m); !matches(b.Spec.Selector.MatchLabels, d.Spec.Template.Labels) {
		t.Error("the budget is for other pods")
	}
	if len(d.Spec.Template.Spec.TopologySpreadConstraints) != 2 {
		t.Error("pods may all be on one node")
	}
	// The way around: the policy in the application's namespace lets only these pods in.
	found := false
	for _, p := range m.policies {
		if p.Namespace != "wiki" {
			continue
		}
		found = true
		from := p.Spec.Ingress[0].From
		if len(p.Spec.Ingress) != 1 || len(from) != 1 || from[0].NamespaceSelector.MatchLabels["kubernetes.io/metadata.name"] != release.Namespace ||
			!matches(from[0].PodSelector.MatchLabels, d.Spec.Template.Labels) {
			t.Errorf("%+v", p.Spec.Ingress)
		}
	}
	if !found {
		t.Error("nothing forbids the way around")
	}
	if !strings.Contains(notes, "https://auth.corp.example.com/.doorward/callback") || strings.Contains(notes, "no routes") {
		t.Error(notes)
	}
	if len(m.all) != 10 {
		t.Errorf("%q", slices.Sorted(maps.Keys(m.all)))
	}
}

// One replica, and everything brought along.
func TestStandaloneOfOnesOwn(t *testing.T) {
	values := valuesOf(t, "standalone-single")
	values["preStopSeconds"] = 5
	m, _ := render(t, "doorward", values)
	m.verify(t, 1)
	d := one[*appsv1.Deployment](t, m)
	spec := d.Spec.Template.Spec
	if *d.Spec.Replicas != 1 || spec.ServiceAccountName != "edge" || spec.NodeSelector["pool"] != "edge" || len(spec.Tolerations) != 1 || spec.Affinity == nil ||
		d.Spec.Template.Labels["team"] != "security" || d.Spec.Template.Annotations["prometheus.io/scrape"] != "true" || spec.ImagePullSecrets[0].Name != "registry" ||
		spec.Containers[0].Env[0].Name != "HTTPS_PROXY" || spec.Containers[0].Ports[0].ContainerPort != 9443 {
		t.Errorf("%+v", d.Spec)
	}
	if spec.Volumes[0].Projected.Sources[0].ConfigMap.Name != "doorward-routes" || len(m.configMaps) != 0 {
		t.Errorf("%+v", spec.Volumes[0])
	}
	if len(m.all) != 3 { // Deployment, Service, NetworkPolicy
		t.Errorf("%q", slices.Sorted(maps.Keys(m.all)))
	}
}

func TestSidecar(t *testing.T) {
	m, notes := render(t, "doorward", valuesOf(t, "sidecar"))
	m.verify(t, 1)
	if !strings.Contains(notes, "port 80") {
		t.Error(notes)
	}
	if p := m.policies[0].Spec.Ingress; len(p) != 1 || p[0].Ports[0].Port.IntVal != 8080 {
		t.Errorf("the pod can be reached otherwise: %+v", p)
	}
}

// An application's own chart includes the sidecar by name.
func TestSidecarInAnotherChart(t *testing.T) {
	m, notes := render(t, "orders", nil)
	m.verify(t, 1)
	if !strings.Contains(notes, `include "doorward.sidecar" .Subcharts.doorward`) {
		t.Error(notes)
	}
}

// Pods restart for what Doorward reads at start only, and for nothing else.
func TestRestartsOnlyWhereNeeded(t *testing.T) {
	template := func(change func(values, config map[string]any)) string {
		values := valuesOf(t, "standalone")
		change(values, values["config"].(map[string]any))
		m, _ := render(t, "doorward", values)
		return one[*appsv1.Deployment](t, m).Spec.Template.String()
	}
	before := template(func(_, _ map[string]any) {})
	for name, change := range map[string]func(values, config map[string]any){
		"routes":    func(_, c map[string]any) { c["routes"].([]any)[0].(map[string]any)["label"] = "secret" },
		"groups":    func(_, c map[string]any) { c["groups"] = map[string]any{} },
		"providers": func(_, c map[string]any) { c["providers"].([]any)[0].(map[string]any)["client_id"] = "new" },
		"proxies":   func(_, c map[string]any) { c["server"].(map[string]any)["trusted_proxies"] = []any{"10.0.0.1"} },
		"a token":   func(_, c map[string]any) { c["server"].(map[string]any)["admin"] = map[string]any{} },
		"the scale": func(v, _ map[string]any) {
			v["standalone"].(map[string]any)["autoscaling"] = map[string]any{"maxReplicas": 20}
		},
	} {
		if template(change) != before {
			t.Errorf("%s: pods restart for what is loaded live", name)
		}
	}
	for name, change := range map[string]func(values, config map[string]any){
		"the store": func(_, c map[string]any) {
			c["sessions"].(map[string]any)["store"].(map[string]any)["redis"].(map[string]any)["grace"] = "1m"
		},
		"the audit log": func(_, c map[string]any) { c["audit"].(map[string]any)["required"] = true },
		"the log":       func(_, c map[string]any) { c["log"] = map[string]any{"level": "debug"} },
		"a limit":       func(_, c map[string]any) { c["server"].(map[string]any)["idle_timeout"] = "1m" },
		"admin hosts": func(_, c map[string]any) {
			c["server"].(map[string]any)["admin"].(map[string]any)["hosts"] = []any{"admin.example.com"}
		},
		"TLS": func(_, c map[string]any) { delete(c["server"].(map[string]any), "tls") },
	} {
		if template(change) == before {
			t.Errorf("%s: nobody restarts, and it does not take effect", name)
		}
	}
}

// Values that are wrong are refused before anything is installed, with a word on
// what is wrong.
func TestWrongValues(t *testing.T) {
	for name, c := range map[string]struct {
		values string
		want   string
	}{
		"a mode that does not exist": {`mode: both`, "mode"},
		"a misspelled key":           {`standalone: {replica: 3}`, "replica"},
		"the latest image":           {`image: {tag: latest}`, "tag"},
		"a tag in the repository":    {`image: {repository: "example.com/doorward:1"}`, "repository"},
		"a digest that is none":      {`image: {digest: abc}`, "digest"},
		"a privileged port":          {`ports: {visitors: 443}`, "visitors"},
		"a port as text":             {`ports: {admin: "9901"}`, "admin"},
		"no limits":                  {`resources: {limits: null}`, "limits"},
		"no replicas":                {`standalone: {replicas: 0}`, "replicas"},
		"a budget of none":           {`standalone: {podDisruptionBudget: {maxUnavailable: 0}}`, "maxUnavailable"},
		"a file outside":             {`files: [{secret: x, items: {a: ../a}}]`, "files"},
		"a file with a root":         {`files: [{secret: x, items: {a: /etc/a}}]`, "files"},
		"a file in place of ours":    {`files: [{secret: x, items: {a: doorward.yaml}}]`, "files"},
		"an application as root":     {`sidecar: {app: {name: a, image: "a:1", runAsUser: 0, resources: {requests: {}, limits: {}}}}`, "app"},
		"its latest image":           {`sidecar: {app: {name: a, image: "a:latest", runAsUser: 1, resources: {requests: {}, limits: {}}}}`, "app"},
		"a namespace that is none":   {`standalone: {protectedNamespaces: [Wiki]}`, "protectedNamespaces"},
		"a half load balancer":       {`standalone: {service: {type: Magic}}`, "type"},

		"no image":                    {`image: {repository: ""}`, "image.repository is missing"},
		"another port":                {`config: {server: {listen: ":443"}}`, "ports.visitors"},
		"another admin port":          {`config: {server: {admin: {listen: ":1234"}}}`, "ports.admin"},
		"a drain that no pod knows":   {`config: {server: {drain_timeout: 5m}}`, "drainSeconds"},
		"replicas that share nothing": {`config: {sessions: {store: {redis: null}}}`, "sessions.store.redis"},
		"less than the least":         {`standalone: {autoscaling: {minReplicas: 5, maxReplicas: 4}}`, "maxReplicas"},
	} {
		values := valuesOf(t, "standalone")
		more, err := common.ReadValues([]byte(c.values))
		if err != nil {
			t.Fatal(err)
		}
		merge(values, more)
		if text, _, err := try(t, "doorward", values); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, %d bytes", name, err, len(text))
		}
	}
	// A sidecar whose ingress nobody named would be open to the whole cluster.
	values := valuesOf(t, "sidecar")
	delete(values["sidecar"].(map[string]any), "ingressNamespace")
	if _, _, err := try(t, "doorward", values); err == nil || !strings.Contains(err.Error(), "sidecar.ingressNamespace is missing") {
		t.Error(err)
	}
}

// merge puts the second values over the first, as --values given twice does.
func merge(values, over map[string]any) {
	for name, value := range over {
		below, ok := values[name].(map[string]any)
		if above, isMap := value.(map[string]any); ok && isMap {
			merge(below, above)
			continue
		}
		values[name] = value
	}
}

// Every key of values.yaml is known to the schema, and the other way around the
// comments of values.yaml are the only documentation, so none may be missing.
func TestEveryValueIsDescribed(t *testing.T) {
	text, err := os.ReadFile("doorward/values.yaml")
	if err != nil {
		t.Fatal(err)
	}
	values, err := common.ReadValues(text)
	if err != nil {
		t.Fatal(err)
	}
	c, err := Load("doorward")
	if err != nil {
		t.Fatal(err)
	}
	schema, err := common.ReadValues(c.Schema)
	if err != nil {
		t.Fatal(err)
	}
	properties := schema["properties"].(map[string]any)
	for name := range values {
		if properties[name] == nil {
			t.Errorf("the schema does not know %s", name)
		}
	}
	for name := range properties {
		if _, ok := values[name]; !ok && name != "global" {
			t.Errorf("values.yaml does not show %s", name)
		}
	}
	if bytes.Contains(text, []byte("\t")) {
		t.Error("tabs in values.yaml")
	}
}
