package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

func manCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "man DIR",
		Short: "Write the manual pages",
		Long: "Write a manual page for every command (doorward.1, doorward-serve.1 ...) into a directory, which is\n" +
			"made if it does not exist. The same version writes the same bytes: pages are dated by SOURCE_DATE_EPOCH,\n" +
			"or not at all.",
		Example: "  doorward man /usr/local/share/man/man1",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			date := ""
			if text := os.Getenv("SOURCE_DATE_EPOCH"); text != "" {
				seconds, err := strconv.ParseInt(text, 10, 64)
				if err != nil {
					return fmt.Errorf("SOURCE_DATE_EPOCH: %q is no number of seconds", text)
				}
				date = time.Unix(seconds, 0).UTC().Format(time.DateOnly)
			}
			return writePages(args[0], date, cmd.Root())
		},
	}
}

// writePages writes the page of a command and those of the commands below it.
func writePages(dir, date string, cmd *cobra.Command) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	var page strings.Builder
	writePage(&page, date, cmd)
	if err := os.WriteFile(filepath.Join(dir, pageName(cmd)+".1"), []byte(page.String()), 0o644); err != nil {
		return err
	}
	for _, below := range cmd.Commands() {
		if below.IsAvailableCommand() {
			if err := writePages(dir, date, below); err != nil {
				return err
			}
		}
	}
	return nil
}

func pageName(cmd *cobra.Command) string { return strings.ReplaceAll(cmd.CommandPath(), " ", "-") }

// writePage writes one page in the macros of man(7).
func writePage(w io.Writer, date string, cmd *cobra.Command) {
	name := pageName(cmd)
	fmt.Fprintf(w, ".TH %s 1 %q %q %q\n", strings.ToUpper(roff(name)), date, "doorward "+buildVersion(), "Doorward")
	fmt.Fprintf(w, ".SH NAME\n%s \\- %s\n", roff(name), roff(cmd.Short))
	fmt.Fprintf(w, ".SH SYNOPSIS\n.B %s\n", roff(cmd.UseLine()))
	section(w, "DESCRIPTION", cmd.Long)
	flags(w, "OPTIONS", cmd.NonInheritedFlags())
	flags(w, "OPTIONS OF EVERY COMMAND", cmd.InheritedFlags())
	if cmd.Example != "" {
		fmt.Fprintf(w, ".SH EXAMPLES\n.nf\n%s\n.fi\n", roff(strings.TrimRight(cmd.Example, "\n")))
	}
	section(w, "EXIT STATUS", "0 if all is well, 1 if the answer is no, 2 if the command line or the configuration is wrong.")
	var others []string
	if cmd.HasParent() {
		others = append(others, pageName(cmd.Parent()))
	}
	for _, below := range cmd.Commands() {
		if below.IsAvailableCommand() {
			others = append(others, pageName(below))
		}
	}
	if len(others) > 0 {
		fmt.Fprint(w, ".SH SEE ALSO\n")
		for i, other := range others {
			end := map[bool]string{true: " ,", false: ""}[i < len(others)-1]
			fmt.Fprintf(w, ".BR %s (1)%s\n", roff(other), end)
		}
	}
}

// section writes a section of paragraphs, which are parted by empty lines.
func section(w io.Writer, title, text string) {
	if text == "" {
		return
	}
	fmt.Fprintf(w, ".SH %s\n", title)
	for i, paragraph := range strings.Split(strings.TrimSpace(text), "\n\n") {
		if i > 0 {
			fmt.Fprint(w, ".PP\n")
		}
		fmt.Fprintln(w, roff(paragraph))
	}
}

func flags(w io.Writer, title string, set *pflag.FlagSet) {
	if !set.HasAvailableFlags() {
		return
	}
	fmt.Fprintf(w, ".SH %s\n", title)
	set.VisitAll(func(flag *pflag.Flag) {
		if flag.Hidden {
			return
		}
		value, usage := pflag.UnquoteUsage(flag)
		text := "--" + flag.Name
		if flag.Shorthand != "" {
			text = "-" + flag.Shorthand + ", " + text
		}
		if value != "" {
			text += " " + value
		}
		if flag.DefValue != "" && flag.DefValue != "false" && flag.DefValue != "[]" && flag.DefValue != "0" && flag.DefValue != "0s" {
			usage += fmt.Sprintf(" (default %s)", flag.DefValue)
		}
		fmt.Fprintf(w, ".TP\n.B %s\n%s\n", roff(text), roff(usage))
	})
}

var roffEscapes = strings.NewReplacer(`\`, `\e`, "-", `\-`, "…", "...", "“", `"`, "”", `"`)

// roff makes text that no line of is taken for a macro.
func roff(text string) string {
	lines := strings.Split(roffEscapes.Replace(text), "\n")
	for i, line := range lines {
		if strings.HasPrefix(line, ".") || strings.HasPrefix(line, "'") {
			lines[i] = `\&` + line
		}
	}
	return strings.Join(lines, "\n")
}
