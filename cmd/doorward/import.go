package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/doorward/doorward/config"
	"github.com/doorward/doorward/internal/migrate"
)

func importCommand(s *settings) *cobra.Command {
	return &cobra.Command{
		Use:   "import {oauth2-proxy|pomerium|authelia|oathkeeper} FILE",
		Short: "Take over the configuration of another product",
		Long: "Print our configuration for that of another product. What cannot be carried over stands at its\n" +
			"beginning as comments and on standard error. Nothing becomes looser by it: a rule that cannot be\n" +
			"expressed is left out, and a route without any lets nobody in. docs/migrate.md says what to expect.\n" +
			"oauth2-proxy takes a second FILE for its alpha configuration. FILE may be - for standard input.",
		Example: "  doorward import pomerium config.yaml >doorward.yaml\n  doorward import oauth2-proxy oauth2-proxy.cfg alpha.yaml >doorward.yaml",
		Args:    cobra.RangeArgs(2, 3),
		RunE: func(cmd *cobra.Command, args []string) error {
			result, err := importFrom(cmd.InOrStdin(), args[0], args[1:])
			if err != nil {
				return &exitError{code: exitUsage, err: err}
			}
			if s.json() {
				return indented(cmd.OutOrStdout(), result)
			}
			for _, left := range result.Left {
				where := args[1]
				if left.Line > 0 {
					where = fmt.Sprintf("%s:%d", where, left.Line)
				}
				fmt.Fprintf(cmd.ErrOrStderr(), "%s: %s: %s: %s\n", where, left.Effect, config.Printable(left.What), config.Printable(left.Text))
			}
			_, err = io.WriteString(cmd.OutOrStdout(), result.Config)
			return err
		},
	}
}

// products are those that can be taken over.
var products = []string{"oauth2-proxy", "pomerium", "authelia", "oathkeeper"}

// maxImport is more than any importer reads, so that it can say so.
const maxImport = 2 << 20

func importFrom(in io.Reader, product string, paths []string) (*migrate.Result, error) {
	if !slices.Contains(products, product) {
		return nil, fmt.Errorf("%q is none of %s", product, strings.Join(products, ", "))
	}
	if len(paths) > 1 && product != "oauth2-proxy" {
		return nil, fmt.Errorf("%s has one file, not %d", product, len(paths))
	}
	texts := make([][]byte, len(paths))
	for i, path := range paths {
		var err error
		if texts[i], err = readImport(in, path); err != nil {
			return nil, err
		}
	}
	result, err := parseImport(product, texts)
	var problem *migrate.Problem
	if errors.As(err, &problem) {
		return nil, fmt.Errorf("%s: %w", paths[0], err)
	}
	return result, err
}

func readImport(in io.Reader, path string) ([]byte, error) {
	if path == "-" {
		return io.ReadAll(io.LimitReader(in, maxImport))
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return io.ReadAll(io.LimitReader(file, maxImport))
}

func parseImport(product string, texts [][]byte) (*migrate.Result, error) {
	switch product {
	case "oauth2-proxy":
		// A single file is either of the two: only one of them has `key: value`.
		if len(texts) == 1 && slices.ContainsFunc([]string{"upstreamConfig:", "providers:", "injectRequestHeaders:"}, func(key string) bool {
			return bytes.HasPrefix(texts[0], []byte(key)) || bytes.Contains(texts[0], []byte("\n"+key))
		}) {
			return migrate.OAuth2Proxy(nil, texts[0])
		}
		return migrate.OAuth2Proxy(texts[0], bytes.Join(texts[1:], nil))
	case "pomerium":
		return migrate.Pomerium(texts[0])
	case "authelia":
		return migrate.Authelia(texts[0])
	}
	return migrate.Oathkeeper(texts[0])
}
