package config

import (
	"fmt"

	"go.yaml.in/yaml/v3"

	"github.com/doorward/doorward/internal/admin"
)

// AdminListen returns the address of the admin listener in a configuration file
// that may be wrong otherwise: a running doorward goes on with the one it loaded,
// and whoever asks how it is doing still finds it. The error says why the file
// tells no address; the default may be tried then.
func AdminListen(path string) (string, error) {
	text, err := readFile(path)
	if err != nil {
		return "", fmt.Errorf("%s cannot be read: %w", path, cause(err))
	}
	var file struct {
		Server struct {
			Admin struct {
				Listen string `yaml:"listen"`
			} `yaml:"admin"`
		} `yaml:"server"`
	}
	if err := yaml.Unmarshal(text, &file); err != nil {
		return "", fmt.Errorf("%s is no YAML that says where the admin listener is: %w", path, err)
	}
	return (&admin.Config{Listen: file.Server.Admin.Listen}).Address(), nil
}
