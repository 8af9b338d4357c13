package main

import (
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/doorward/doorward/config"
	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/audit"
)

func auditCommand(s *settings) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "Work with the audit log",
	}
	cmd.AddCommand(auditPublicKeyCommand(s), auditExportCommand(s), auditEraseCommand(s), auditWhoCommand(s))
	return cmd
}

func auditPublicKeyCommand(s *settings) *cobra.Command {
	return &cobra.Command{
		Use:   "public-key",
		Short: "Print the key that verifies the signatures of the audit files",
		Long:  "Print the public key that belongs to audit.key. Keep it where the audit files are verified, not where they are written.",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			secret, err := auditKey(s)
			if err != nil {
				return err
			}
			key, err := audit.SigningKey(secret)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), base64.RawURLEncoding.EncodeToString(key.Public().(ed25519.PublicKey)))
			return err
		},
	}
}

var errNoAuditKey = errors.New("audit.key is not set: make a secret with openssl rand -base64 33, and name it as audit.key: {file: PATH}")

// auditKey reads audit.key from the configuration.
func auditKey(s *settings) (access.Secret, error) {
	cfg, err := config.Load(s.config)
	if err != nil {
		return access.Secret{}, err
	}
	if cfg.Audit.Key.IsZero() {
		return access.Secret{}, errNoAuditKey
	}
	return cfg.Audit.Key, nil
}
