// Command render prints the manifests of a chart, as `helm template` does:
//
//	go run ./render -name edge -namespace doorward -values doorward/ci/standalone.yaml doorward
package main

import (
	"flag"
	"fmt"
	"os"

	"helm.sh/helm/v4/pkg/chart/common"

	"github.com/doorward/doorward/deploy/helm"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "render:", err)
		os.Exit(1)
	}
}

func run() error {
	var r helm.Release
	flag.StringVar(&r.Name, "name", "doorward", "`name` of the release")
	flag.StringVar(&r.Namespace, "namespace", "default", "`namespace` of the release")
	file := flag.String("values", "", "`file` with values")
	flag.Parse()
	c, err := helm.Load(flag.Arg(0))
	if err != nil {
		return err
	}
	values := common.Values{}
	if *file != "" {
		if values, err = common.ReadValuesFile(*file); err != nil {
			return err
		}
	}
	manifests, notes, err := helm.Render(c, values, r)
	if err != nil {
		return err
	}
	fmt.Fprint(os.Stderr, notes)
	_, err = os.Stdout.Write(manifests)
	return err
}
