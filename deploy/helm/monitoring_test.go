package helm

import (
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// prometheusRule and podMonitor are what we use of the types of Prometheus' operator.
type prometheusRule struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              struct {
		Groups []struct {
			Name  string `json:"name"`
			Rules []struct {
				Alert       string            `json:"alert"`
				Expr        string            `json:"expr"`
				For         string            `json:"for"`
				Labels      map[string]string `json:"labels"`
				Annotations map[string]string `json:"annotations"`
			} `json:"rules"`
		} `json:"groups"`
	} `json:"spec"`
}

type podMonitor struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              struct {
		Selector  metav1.LabelSelector `json:"selector"`
		Endpoints []struct {
			Port string `json:"port"`
			Path string `json:"path"`
		} `json:"podMetricsEndpoints"`
	} `json:"spec"`
}

// The chart carries the alert rules as they are shipped, and has the pods scraped.
func TestMonitoring(t *testing.T) {
	values := valuesOf(t, "standalone")
	values["prometheusOperator"] = map[string]any{"enabled": true, "labels": map[string]any{"release": "prometheus"}}
	m, _ := render(t, "doorward", values)
	m.verify(t, 1)
	rules := one[*prometheusRule](t, m)
	n := 0
	for _, group := range rules.Spec.Groups {
		for _, r := range group.Rules {
			n++
			if r.Alert == "" || r.Expr == "" || r.Labels["severity"] == "" || r.Annotations["runbook_url"] == "" {
				t.Errorf("%+v", r)
			}
		}
	}
	if n < 25 || rules.Labels["release"] != "prometheus" {
		t.Errorf("%d rules, labels %v", n, rules.Labels)
	}
	d, monitor := one[*appsv1.Deployment](t, m), one[*podMonitor](t, m)
	if !matches(monitor.Spec.Selector.MatchLabels, d.Spec.Template.Labels) || len(monitor.Spec.Endpoints) != 1 {
		t.Errorf("%+v", monitor.Spec)
	}
	found := false
	for _, port := range d.Spec.Template.Spec.Containers[0].Ports {
		found = found || port.Name == monitor.Spec.Endpoints[0].Port
	}
	if !found {
		t.Errorf("no port %s", monitor.Spec.Endpoints[0].Port)
	}
	sidecar := valuesOf(t, "sidecar")
	sidecar["prometheusOperator"] = map[string]any{"enabled": true}
	m, _ = render(t, "doorward", sidecar)
	one[*prometheusRule](t, m)
}
