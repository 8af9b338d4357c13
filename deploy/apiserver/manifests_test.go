package apiserver

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// resources are where objects of a kind live.
var resources = map[string]string{
	"Namespace": "/api/v1/namespaces", "ConfigMap": "/api/v1/namespaces/%s/configmaps", "Service": "/api/v1/namespaces/%s/services",
	"ServiceAccount": "/api/v1/namespaces/%s/serviceaccounts", "Pod": "/api/v1/namespaces/%s/pods",
	"Deployment": "/apis/apps/v1/namespaces/%s/deployments", "CronJob": "/apis/batch/v1/namespaces/%s/cronjobs",
	"PodDisruptionBudget":     "/apis/policy/v1/namespaces/%s/poddisruptionbudgets",
	"HorizontalPodAutoscaler": "/apis/autoscaling/v2/namespaces/%s/horizontalpodautoscalers",
	"NetworkPolicy":           "/apis/networking.k8s.io/v1/namespaces/%s/networkpolicies",
	"Ingress":                 "/apis/networking.k8s.io/v1/namespaces/%s/ingresses",
	"ClusterRoleBinding":      "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
}

const strict = "?fieldValidation=Strict"

// object is as much of a manifest as the test has to know.
type object struct {
	Kind     string
	Metadata struct{ Name, Namespace string }
	Spec     struct {
		Template    *map[string]any
		JobTemplate struct {
			Spec struct{ Template *map[string]any }
		}
	}
}

// apply creates every object of a stream, strictly, and the pods that workloads
// would make as a dry run: only pods are held to PodSecurity, and no controller
// makes them here. It returns how many objects and pods were accepted.
func (c *cluster) apply(t *testing.T, text []byte, namespace string) (objects, pods int) {
	t.Helper()
	for doc := range bytes.SplitSeq(append([]byte("\n"), text...), []byte("\n---")) {
		var o object
		if err := yaml.Unmarshal(doc, &o); err != nil {
			t.Fatalf("%v in:\n%s", err, doc)
		}
		if o.Kind == "" {
			continue
		}
		if o.Metadata.Namespace == "" {
			o.Metadata.Namespace = namespace
		}
		where, ok := resources[o.Kind]
		if !ok {
			t.Fatalf("a %s, which this test does not know", o.Kind)
		}
		if strings.Contains(where, "%s") {
			where = fmt.Sprintf(where, o.Metadata.Namespace)
		}
		status, body, warnings, err := c.do(http.MethodPost, where+strict, "application/yaml", doc)
		if err != nil || status != http.StatusCreated || len(warnings) > 0 {
			t.Errorf("%s %s: %d, warnings %q, %v, %s", o.Kind, o.Metadata.Name, status, warnings, err, body)
			continue
		}
		objects++
		template := o.Spec.Template
		if o.Kind == "CronJob" {
			template = o.Spec.JobTemplate.Spec.Template
		}
		if template == nil {
			continue
		}
		if status, body, warnings := c.tryPod(t, *template, o.Metadata.Namespace); status != http.StatusCreated || len(warnings) > 0 {
			t.Errorf("the pod of %s %s: %d, warnings %q, %s", o.Kind, o.Metadata.Name, status, warnings, body)
			continue
		}
		pods++
	}
	return objects, pods
}

// tryPod has the API server admit a pod without keeping it.
func (c *cluster) tryPod(t *testing.T, template map[string]any, namespace string) (int, string, []string) {
	t.Helper()
	metadata, _ := template["metadata"].(map[string]any)
	if metadata == nil {
		metadata = map[string]any{}
	}
	metadata["name"] = "tried"
	text, err := yaml.Marshal(map[string]any{"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]})
	if err != nil {
		t.Fatal(err)
	}
	status, body, warnings, err := c.do(http.MethodPost, fmt.Sprintf(resources["Pod"], namespace)+strict+"&dryRun=All", "application/yaml", text)
	if err != nil {
		t.Fatal(err)
	}
	return status, body, warnings
}

// The manifests of deploy/kubernetes, and the chart with each file of values, in
// namespaces that enforce restricted PodSecurity.
func TestManifestsAreAccepted(t *testing.T) {
	for _, mode := range []string{"standalone", "sidecar"} {
		t.Run(mode, func(t *testing.T) {
			names, _ := filepath.Glob("../kubernetes/" + mode + "/*.yaml")
			slices.Sort(names)
			objects, pods := 0, 0
			for _, name := range names {
				text, err := os.ReadFile(name)
				if err != nil {
					t.Fatal(err)
				}
				o, p := kube.apply(t, text, "")
				objects, pods = objects+o, pods+p
			}
			t.Logf("%d objects and %d pods accepted", objects, pods)
			if mode == "standalone" { // whose namespaces it is for
				text, err := os.ReadFile("../kubernetes/gateways/ingress-nginx.yaml")
				if err != nil {
					t.Fatal(err)
				}
				kube.apply(t, text, "")
			}
			if objects < 8 || pods == 0 {
				t.Error("there should be more")
			}
		})
	}
	for i, args := range [][]string{
		{"-values", "../helm/doorward/ci/standalone.yaml", "../helm/doorward"},
		{"-values", "../helm/doorward/ci/standalone-single.yaml", "../helm/doorward"},
		{"-values", "../helm/doorward/ci/sidecar.yaml", "../helm/doorward"},
		{"../helm/orders"},
	} {
		namespace := fmt.Sprintf("chart-%d", i)
		t.Run("chart "+strings.Join(args[len(args)-1:], " ")+fmt.Sprint(i), func(t *testing.T) {
			kube.restricted(t, namespace)
			kube.post(t, fmt.Sprintf(resources["ServiceAccount"], namespace), // which values name as one that exists
				map[string]any{"apiVersion": "v1", "kind": "ServiceAccount", "metadata": map[string]any{"name": "edge"}}, nil)
			cmd := exec.Command(kube.path("render"), append([]string{"-name", "rel", "-namespace", namespace}, args...)...)
			text, err := cmd.Output()
			if err != nil {
				t.Fatal(err)
			}
			objects, pods := kube.apply(t, text, namespace)
			t.Logf("%s: %d objects and %d pods accepted", strings.Join(args, " "), objects, pods)
			if objects < 3 || pods != 1 {
				t.Error("there should be more")
			}
		})
	}
}

// restricted makes a namespace that admits restricted pods only.
func (c *cluster) restricted(t *testing.T, name string) {
	t.Helper()
	c.post(t, resources["Namespace"], map[string]any{"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"name": name,
		"labels": map[string]any{"pod-security.kubernetes.io/enforce": "restricted", "pod-security.kubernetes.io/warn": "restricted"}}}, nil)
}

// What the test above relies on: this API server refuses a misspelled field and a
// pod that is not restricted.
func TestTheServerIsStrict(t *testing.T) {
	kube.restricted(t, "strict")
	status, body, _, err := kube.do(http.MethodPost, fmt.Sprintf(resources["ConfigMap"], "strict")+strict, "application/yaml",
		[]byte("{apiVersion: v1, kind: ConfigMap, metadata: {name: a}, date: {a: b}}"))
	if err != nil || status != http.StatusBadRequest || !strings.Contains(body, `unknown field \"date\"`) {
		t.Errorf("%d %v %s", status, err, body)
	}
	kube.post(t, fmt.Sprintf(resources["ServiceAccount"], "strict"), map[string]any{"apiVersion": "v1", "kind": "ServiceAccount", "metadata": map[string]any{"name": "default"}}, nil)
	status, body, _ = kube.tryPod(t, map[string]any{"spec": map[string]any{"containers": []any{map[string]any{"name": "a", "image": "a:1"}}}}, "strict")
	if status != http.StatusForbidden || !strings.Contains(body, "violates PodSecurity") {
		t.Errorf("%d %s", status, body)
	}
}
