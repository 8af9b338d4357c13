package helm

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

// manifests are objects by kind and name, decoded strictly: an unknown or
// misspelled field is an error, as it is for `kubectl apply --validate=strict`.
type manifests struct {
	all        map[string]any // "Kind/namespace/name"
	pods       []pod
	configMaps map[string]*corev1.ConfigMap
	policies   []*networkingv1.NetworkPolicy
}

// pod is what a workload makes.
type pod struct {
	owner string // "Deployment/name"
	meta  metav1.ObjectMeta
	spec  corev1.PodSpec
}

// decode reads a stream of YAML documents.
func decode(t *testing.T, text []byte) *manifests {
	t.Helper()
	m := &manifests{all: map[string]any{}, configMaps: map[string]*corev1.ConfigMap{}}
	for doc := range bytes.SplitSeq(append([]byte("\n"), text...), []byte("\n---")) {
		var head struct {
			metav1.TypeMeta   `json:",inline"`
			metav1.ObjectMeta `json:"metadata"`
		}
		if err := yaml.Unmarshal(doc, &head); err != nil {
			t.Fatalf("%v in:\n%s", err, doc)
		}
		if head.Kind == "" {
			if len(bytes.TrimSpace(doc)) > 0 && !onlyComments(doc) {
				t.Fatalf("no kind in:\n%s", doc)
			}
			continue
		}
		o := empty(head.APIVersion + "/" + head.Kind)
		if o == nil {
			t.Fatalf("unknown kind %s of %s", head.Kind, head.APIVersion)
		}
		if err := yaml.UnmarshalStrict(doc, o); err != nil {
			t.Errorf("%s %s: %v", head.Kind, head.Name, err)
		}
		key := head.Kind + "/" + head.Namespace + "/" + head.Name
		if m.all[key] != nil {
			t.Errorf("%s is there twice", key)
		}
		m.all[key] = o
		switch o := o.(type) {
		case *appsv1.Deployment:
			m.pods = append(m.pods, pod{"Deployment/" + o.Name, o.Spec.Template.ObjectMeta, o.Spec.Template.Spec})
			if o.Spec.Selector == nil || !matches(o.Spec.Selector.MatchLabels, o.Spec.Template.Labels) {
				t.Errorf("Deployment %s does not select its own pods", o.Name)
			}
		case *batchv1.CronJob:
			template := o.Spec.JobTemplate.Spec.Template
			m.pods = append(m.pods, pod{"CronJob/" + o.Name, template.ObjectMeta, template.Spec})
		case *corev1.ConfigMap:
			m.configMaps[o.Name] = o
		case *networkingv1.NetworkPolicy:
			m.policies = append(m.policies, o)
		}
	}
	return m
}

func onlyComments(doc []byte) bool {
	for line := range bytes.Lines(doc) {
		if line = bytes.TrimSpace(line); len(line) > 0 && line[0] != '#' {
			return false
		}
	}
	return true
}

// empty returns an object of a kind that the manifests may use.
func empty(kind string) any {
	switch kind {
	case "v1/Namespace":
		return &corev1.Namespace{}
	case "v1/ConfigMap":
		return &corev1.ConfigMap{}
	case "v1/Service":
		return &corev1.Service{}
	case "v1/ServiceAccount":
		return &corev1.ServiceAccount{}
	case "apps/v1/Deployment":
		return &appsv1.Deployment{}
	case "batch/v1/CronJob":
		return &batchv1.CronJob{}
	case "policy/v1/PodDisruptionBudget":
		return &policyv1.PodDisruptionBudget{}
	case "autoscaling/v2/HorizontalPodAutoscaler":
		return &autoscalingv2.HorizontalPodAutoscaler{}
	case "networking.k8s.io/v1/NetworkPolicy":
		return &networkingv1.NetworkPolicy{}
	case "networking.k8s.io/v1/Ingress":
		return &networkingv1.Ingress{}
	case "monitoring.coreos.com/v1/PrometheusRule":
		return &prometheusRule{}
	case "monitoring.coreos.com/v1/PodMonitor":
		return &podMonitor{}
	case "rbac.authorization.k8s.io/v1/ClusterRoleBinding":
		return &rbacv1.ClusterRoleBinding{}
	}
	return nil
}

func matches(selector, labels map[string]string) bool {
	for name, value := range selector {
		if labels[name] != value {
			return false
		}
	}
	return len(selector) > 0
}

// one returns the only object of a type.
func one[T any](t *testing.T, m *manifests) T {
	t.Helper()
	var found []T
	for _, o := range m.all {
		if o, ok := o.(T); ok {
			found = append(found, o)
		}
	}
	if len(found) != 1 {
		t.Fatalf("%d objects of type %T", len(found), *new(T))
	}
	return found[0]
}

// The manifests that are applied as they are.
func TestPlainManifests(t *testing.T) {
	for _, mode := range []string{"sidecar", "standalone"} {
		t.Run(mode, func(t *testing.T) {
			names, _ := filepath.Glob(filepath.Join("..", "kubernetes", mode, "*.yaml"))
			if len(names) < 5 {
				t.Fatalf("found %v", names)
			}
			var all []byte
			for _, name := range names {
				text, err := os.ReadFile(name)
				if err != nil {
					t.Fatal(err)
				}
				all = append(append(all, "\n---\n"...), text...)
			}
			m := decode(t, all)
			m.verify(t, 1)
			for _, o := range m.all {
				if ns, ok := o.(*corev1.Namespace); ok && ns.Labels["pod-security.kubernetes.io/enforce"] != "restricted" {
					t.Errorf("namespace %s does not enforce restricted pods", ns.Name)
				}
			}
		})
	}
}

// What a gateway of the API itself is told; those with resources of their own are
// not known here.
func TestGateways(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "kubernetes", "gateways", "ingress-nginx.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if m := decode(t, text); len(m.all) != 2 {
		t.Errorf("%d objects", len(m.all))
	}
}

// verify checks every pod, and with the real `doorward check` the configuration
// of each that has Doorward in it.
func (m *manifests) verify(t *testing.T, doors int) {
	t.Helper()
	found := 0
	for _, p := range m.pods {
		for _, fault := range podFaults(&p.spec) {
			t.Errorf("%s: %s", p.owner, fault)
		}
		door := doorIn(&p.spec)
		if door == nil {
			continue
		}
		found++
		for _, fault := range doorFaults(&p.spec, door) {
			t.Errorf("%s: %s", p.owner, fault)
		}
		m.checkConfig(t, &p.spec, door)
	}
	if found != doors {
		t.Errorf("%d pods with Doorward, want %d", found, doors)
	}
}
