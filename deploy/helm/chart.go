// Package helm answers: what does the chart become with these values? It loads
// and renders with Helm's own engine, as `helm template` does.
//
// It is a module of its own, so that Doorward itself does not depend on Helm.
package helm

import (
	"bytes"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"helm.sh/helm/v4/pkg/chart/common"
	chartutil "helm.sh/helm/v4/pkg/chart/common/util"
	chart "helm.sh/helm/v4/pkg/chart/v2"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	chartv2util "helm.sh/helm/v4/pkg/chart/v2/util"
	"helm.sh/helm/v4/pkg/engine"
)

// Release is where a chart is rendered for.
type Release struct{ Name, Namespace string }

// Load reads the chart in a directory. Its dependency on a chart beside it, which
// `helm dependency build` copies, is read from there.
func Load(dir string) (*chart.Chart, error) {
	c, err := loader.Load(dir)
	if err != nil {
		return nil, err
	}
	for _, needed := range c.Metadata.Dependencies {
		if path, ok := strings.CutPrefix(needed.Repository, "file://"); ok {
			sub, err := loader.Load(filepath.Join(dir, path))
			if err != nil {
				return nil, err
			}
			c.AddDependency(sub)
		}
	}
	return c, nil
}

// Render returns the manifests, and apart from them the notes for whoever
// installs it.
func Render(c *chart.Chart, values map[string]any, r Release) (manifests []byte, notes string, err error) {
	if err := chartv2util.ProcessDependencies(c, values); err != nil {
		return nil, "", err
	}
	caps := common.DefaultCapabilities.Copy()
	all, err := chartutil.ToRenderValues(c, values, common.ReleaseOptions{Name: r.Name, Namespace: r.Namespace, IsInstall: true, Revision: 1}, caps)
	if err != nil {
		return nil, "", err
	}
	files, err := engine.Render(c, all)
	if err != nil {
		return nil, "", err
	}
	var out bytes.Buffer
	for _, name := range slices.Sorted(maps.Keys(files)) {
		text := strings.TrimSpace(files[name])
		switch {
		case strings.HasSuffix(name, "NOTES.txt"):
			notes += text + "\n"
		case text != "":
			fmt.Fprintf(&out, "---\n# Source: %s\n%s\n", name, strings.TrimPrefix(text, "---\n"))
		}
	}
	return out.Bytes(), notes, nil
}
