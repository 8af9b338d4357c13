package helm

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/utils/ptr"
)

// podFaults lists what a pod lacks: restricted PodSecurity and what we ask beyond
// it (a read-only root, resources, a version of the image, no token unasked).
func podFaults(spec *corev1.PodSpec) (faults []string) {
	fault := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }
	if spec.HostNetwork || spec.HostPID || spec.HostIPC {
		fault("shares the host's namespaces")
	}
	if spec.AutomountServiceAccountToken == nil || *spec.AutomountServiceAccountToken {
		fault("gives every container a token of the API server")
	}
	volumes := map[string]bool{}
	for _, v := range spec.Volumes {
		volumes[v.Name] = true
		if v.Projected == nil && v.EmptyDir == nil && v.ConfigMap == nil && v.Secret == nil {
			fault("volume %s is of a kind that nobody expects here", v.Name)
		}
	}
	above := spec.SecurityContext
	if above == nil {
		above = &corev1.PodSecurityContext{}
	}
	for _, c := range slices.Concat(spec.InitContainers, spec.Containers) {
		own := c.SecurityContext
		if own == nil {
			own = &corev1.SecurityContext{}
		}
		if nonRoot := either(own.RunAsNonRoot, above.RunAsNonRoot); nonRoot == nil || !*nonRoot {
			fault("%s may run as root", c.Name)
		}
		if user := either(own.RunAsUser, above.RunAsUser); user == nil || *user == 0 {
			fault("%s names no user but root", c.Name)
		}
		if seccomp := either(own.SeccompProfile, above.SeccompProfile); seccomp == nil || seccomp.Type != corev1.SeccompProfileTypeRuntimeDefault {
			fault("%s has no seccomp profile", c.Name)
		}
		if own.AllowPrivilegeEscalation == nil || *own.AllowPrivilegeEscalation || own.Privileged != nil && *own.Privileged {
			fault("%s may gain privileges", c.Name)
		}
		if own.Capabilities == nil || !slices.Equal(own.Capabilities.Drop, []corev1.Capability{"ALL"}) || len(own.Capabilities.Add) > 0 {
			fault("%s keeps capabilities", c.Name)
		}
		if own.ReadOnlyRootFilesystem == nil || !*own.ReadOnlyRootFilesystem {
			fault("%s may write to its root", c.Name)
		}
		name := c.Image[strings.LastIndex(c.Image, "/")+1:]
		if _, version, ok := strings.Cut(name, ":"); !strings.Contains(name, "@sha256:") && (!ok || version == "latest" || version == "") {
			fault("%s runs the image %q, whatever that is today", c.Name, c.Image)
		}
		if c.Resources.Requests.Cpu().IsZero() || c.Resources.Requests.Memory().IsZero() || c.Resources.Limits.Memory().IsZero() {
			fault("%s says not what it needs", c.Name)
		}
		for _, mount := range c.VolumeMounts {
			if !volumes[mount.Name] {
				fault("%s mounts %s, which is not there", c.Name, mount.Name)
			}
			if mount.SubPath != "" || mount.SubPathExpr != "" {
				fault("%s mounts %s by subPath, which never changes", c.Name, mount.Name)
			}
		}
	}
	return faults
}

func either[T any](own, above *T) *T {
	if own != nil {
		return own
	}
	return above
}

// doorIn returns the container that is Doorward.
func doorIn(spec *corev1.PodSpec) *corev1.Container {
	for _, list := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
		for i := range list {
			if list[i].Name == "doorward" {
				return &list[i]
			}
		}
	}
	return nil
}

// doorFaults lists what is wrong with Doorward's own container.
func doorFaults(spec *corev1.PodSpec, door *corev1.Container) (faults []string) {
	fault := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }
	sidecar := slices.ContainsFunc(spec.InitContainers, func(c corev1.Container) bool { return c.Name == door.Name })
	if sidecar && (door.RestartPolicy == nil || *door.RestartPolicy != corev1.ContainerRestartPolicyAlways) {
		fault("an init container that never ends, instead of a sidecar")
	}
	for name, p := range map[string]*corev1.Probe{"/readyz startup": door.StartupProbe, "/readyz readiness": door.ReadinessProbe, "/healthz liveness": door.LivenessProbe} {
		path, kind, _ := strings.Cut(name, " ")
		if p == nil || p.HTTPGet == nil || p.HTTPGet.Path != path {
			fault("no %s probe of %s", kind, path)
			continue
		}
		if !slices.ContainsFunc(door.Ports, func(port corev1.ContainerPort) bool { return port.Name == p.HTTPGet.Port.StrVal }) {
			fault("the %s probe asks a port that is not there", kind)
		}
	}
	if user := door.SecurityContext.RunAsUser; user == nil || *user != 65532 {
		fault("runs as another user than the image is made for")
	}
	return faults
}

// What is checked above is really checked.
func TestPodFaults(t *testing.T) {
	good := func() *corev1.PodSpec {
		some := corev1.ResourceList{"cpu": resource.MustParse("1"), "memory": resource.MustParse("1Mi")}
		return &corev1.PodSpec{
			AutomountServiceAccountToken: ptr.To(false),
			SecurityContext:              &corev1.PodSecurityContext{RunAsNonRoot: ptr.To(true), SeccompProfile: &corev1.SeccompProfile{Type: "RuntimeDefault"}},
			Volumes:                      []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}},
			Containers: []corev1.Container{{Name: "c", Image: "r:5000/i:1", Resources: corev1.ResourceRequirements{Requests: some, Limits: some},
				VolumeMounts: []corev1.VolumeMount{{Name: "v"}},
				SecurityContext: &corev1.SecurityContext{RunAsUser: ptr.To[int64](1), AllowPrivilegeEscalation: ptr.To(false), ReadOnlyRootFilesystem: ptr.To(true),
					Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}}}}},
		}
	}
	if faults := podFaults(good()); len(faults) > 0 {
		t.Fatal(faults)
	}
	for want, spoil := range map[string]func(p *corev1.PodSpec, c *corev1.Container){
		"host's namespaces": func(p *corev1.PodSpec, _ *corev1.Container) { p.HostPID = true },
		"a token":           func(p *corev1.PodSpec, _ *corev1.Container) { p.AutomountServiceAccountToken = nil },
		"nobody expects": func(p *corev1.PodSpec, _ *corev1.Container) {
			p.Volumes[0].VolumeSource = corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{}}
		},
		"run as root":      func(p *corev1.PodSpec, _ *corev1.Container) { p.SecurityContext.RunAsNonRoot = nil },
		"no user but root": func(_ *corev1.PodSpec, c *corev1.Container) { c.SecurityContext.RunAsUser = ptr.To[int64](0) },
		"seccomp":          func(p *corev1.PodSpec, _ *corev1.Container) { p.SecurityContext.SeccompProfile = nil },
		"gain privileges":  func(_ *corev1.PodSpec, c *corev1.Container) { c.SecurityContext.AllowPrivilegeEscalation = nil },
		"keeps capabilities": func(_ *corev1.PodSpec, c *corev1.Container) {
			c.SecurityContext.Capabilities.Add = []corev1.Capability{"X"}
		},
		"write to its root":  func(_ *corev1.PodSpec, c *corev1.Container) { c.SecurityContext.ReadOnlyRootFilesystem = nil },
		"whatever that is":   func(_ *corev1.PodSpec, c *corev1.Container) { c.Image = "r:5000/i" },
		"what it needs":      func(_ *corev1.PodSpec, c *corev1.Container) { c.Resources.Limits = nil },
		"which is not there": func(_ *corev1.PodSpec, c *corev1.Container) { c.VolumeMounts[0].Name = "x" },
		"never changes":      func(_ *corev1.PodSpec, c *corev1.Container) { c.VolumeMounts[0].SubPath = "x" },
	} {
		p := good()
		spoil(p, &p.Containers[0])
		if faults := podFaults(p); len(faults) != 1 || !strings.Contains(faults[0], want) {
			t.Errorf("want %q: %q", want, faults)
		}
	}
	naked := &corev1.PodSpec{InitContainers: []corev1.Container{{Name: "doorward", SecurityContext: &corev1.SecurityContext{}}}}
	if faults := doorFaults(naked, doorIn(naked)); len(faults) != 5 {
		t.Errorf("%q", faults)
	}
}
