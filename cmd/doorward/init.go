package main

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"text/template"

	"github.com/spf13/cobra"

	"github.com/doorward/doorward/config"
)

// firstConfig is what `doorward init` has to know.
type firstConfig struct {
	App, To, Issuer, ClientID, Secret, Group string
	Listen, Cert, Key                        string
	Everyone                                 bool
}

// question is one thing that init asks for, or takes from a flag.
type question struct {
	flag, text, fallback string
	answer               *string
}

func (f *firstConfig) questions() []question {
	return []question{
		{"app", "Address of the application, as visitors will write it (https://wiki.corp.example.com)", "", &f.App},
		{"to", "Address of the application behind Doorward (http://127.0.0.1:3000)", "", &f.To},
		{"issuer", "Issuer of the identity provider (https://login.corp.example.com)", "", &f.Issuer},
		{"client-id", "Client id that the provider gave to Doorward", "doorward", &f.ClientID},
		{"client-secret-file", "File that holds the client secret", "client-secret", &f.Secret},
	}
}

func initCommand(s *settings) *cobra.Command {
	var f firstConfig
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Write a first configuration",
		Long: "Write a first configuration for one application: who logs in where, and which group may use it. On a\n" +
			"terminal it asks for what the flags leave open. It writes only what doorward check accepts: the files\n" +
			"with the client secret and the certificate have to be there, and what is missing is listed. It never\n" +
			"overwrites a file and never sees the secret.",
		Example: "  doorward init --app https://wiki.corp.example.com --to http://127.0.0.1:3000 \\\n" +
			"    --issuer https://login.corp.example.com --client-secret-file client-secret --group eng",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.run(s.config, isTerminal(os.Stdin), cmd.InOrStdin(), cmd.OutOrStdout())
		},
	}
	for _, q := range f.questions() {
		usage := strings.ToLower(q.text[:1]) + q.text[1:]
		if q.fallback != "" {
			usage += " (default " + q.fallback + ")"
		}
		cmd.Flags().StringVar(q.answer, q.flag, "", usage)
	}
	cmd.Flags().StringVar(&f.Group, "group", "", "the group that may use it, as the provider spells it")
	cmd.Flags().BoolVar(&f.Everyone, "everyone", false, "everybody who can log in may use it")
	cmd.Flags().StringVar(&f.Listen, "listen", "", "address to listen on (default :443, or for http:// the loopback address and its port)")
	cmd.Flags().StringVar(&f.Cert, "cert", "tls.crt", "certificate `file`, where the application's address is https")
	cmd.Flags().StringVar(&f.Key, "key", "tls.key", "key `file` of the certificate")
	cmd.MarkFlagsMutuallyExclusive("group", "everyone")
	return cmd
}

func (f *firstConfig) run(path string, ask bool, in io.Reader, out io.Writer) error {
	if _, err := os.Lstat(path); err == nil {
		return fmt.Errorf("%s is there already, and is not overwritten; choose another name with --config", path)
	}
	if err := f.complete(ask, in, out); err != nil {
		return err
	}
	text, err := f.text()
	if err != nil {
		return err
	}
	if err := accepted(path, text); err != nil {
		return fmt.Errorf("nothing was written, since doorward could not serve with it yet:\n%w", err)
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s has appeared meanwhile, and is not overwritten", path)
	}
	if err != nil {
		return err
	}
	_, err = file.WriteString(text)
	if err = errors.Join(err, file.Close()); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	app, _ := url.Parse(f.App) // text has read it
	fmt.Fprintf(out, "%s is written. Next:\n"+
		"  register %s://%s/.doorward/callback with the identity provider\n"+
		"  doorward check --config %s\n"+
		"  doorward serve --config %s\n", path, app.Scheme, app.Host, path, path)
	return nil
}

// complete asks for what the flags left open, as long as there is somebody who
// answers.
func (f *firstConfig) complete(ask bool, in io.Reader, out io.Writer) error {
	questions := f.questions()
	if !f.Everyone && f.Group == "" {
		questions = append(questions, question{"group", "Group that may use it, as the provider spells it (\"*\" stands for everybody who can log in)", "", &f.Group})
	}
	var missing []string
	lines := bufio.NewScanner(in)
	for _, q := range questions {
		if *q.answer != "" {
			continue
		}
		if ask {
			prompt := q.text
			if q.fallback != "" {
				prompt += " [" + q.fallback + "]"
			}
			fmt.Fprint(out, prompt+": ")
			if ask = lines.Scan(); !ask {
				fmt.Fprintln(out)
			}
			*q.answer = strings.TrimSpace(lines.Text())
		}
		if *q.answer = cmp.Or(*q.answer, q.fallback); *q.answer == "" {
			missing = append(missing, "--"+q.flag)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("not known yet: %s", strings.Replace(strings.Join(missing, ", "), "--group", "--group or --everyone", 1))
	}
	if f.Group == "*" {
		f.Group, f.Everyone = "", true
	}
	return nil
}

// firstText is the configuration. Every value is quoted, so that none of them
// can be anything but a string.
var firstText = template.Must(template.New("").Parse(`# Written by doorward init; docs/config.md describes every key.
version: 1
server: {listen: {{printf "%q" .Listen}}{{if .TLS}}, tls: {certificates: [{cert: {{printf "%q" .Cert}}, key: {{printf "%q" .Key}}}]}{{end}}}
providers:
  - {id: corp, issuer: {{printf "%q" .Issuer}}, client_id: {{printf "%q" .ClientID}}, client_secret: {file: {{printf "%q" .Secret}}}}
{{with .Group}}groups:
  members: {provider: corp, claim_groups: [{{printf "%q" .}}]}
{{end}}routes:
  - id: {{printf "%q" .ID}}
    from: {{printf "%q" .App}}
    to: [{{printf "%q" .To}}]
    allow: [{{if .Group}}{name: members, groups: [members]}{{else}}{name: everyone, any_user: true}{{end}}]
`))

func (f *firstConfig) text() (string, error) {
	app, err := url.Parse(f.App)
	if err != nil || app.Scheme != "https" && app.Scheme != "http" || app.Hostname() == "" {
		return "", fmt.Errorf("--app %q is no address; write https://wiki.corp.example.com", f.App)
	}
	tls := app.Scheme == "https"
	if f.Listen == "" {
		f.Listen = ":" + cmp.Or(app.Port(), "443")
		if !tls {
			f.Listen = "127.0.0.1:" + cmp.Or(app.Port(), "80")
		}
	}
	id, _, _ := strings.Cut(app.Hostname(), ".")
	var text strings.Builder
	err = firstText.Execute(&text, struct {
		firstConfig
		TLS bool
		ID  string
	}{*f, tls, id})
	return text.String(), err
}

// accepted reports why a configuration could not be served, as doorward check
// does. It is read beside the place it is for, since its files are named from
// there.
func accepted(path, text string) error {
	trial, err := os.CreateTemp(filepath.Dir(path), ".doorward-init-*.yaml")
	if err != nil {
		return err
	}
	defer os.Remove(trial.Name())
	_, err = trial.WriteString(text)
	if err = errors.Join(err, trial.Close()); err != nil {
		return err
	}
	if _, err := config.Load(trial.Name()); err != nil {
		return errors.New(strings.ReplaceAll(err.Error(), trial.Name(), path))
	}
	return nil
}
