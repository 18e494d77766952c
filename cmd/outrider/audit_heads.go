package main

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"database/sql"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/outrider-relay/outrider/adapters/postgres"
	"github.com/outrider-relay/outrider/domain"
)

func (a *app) auditHeads() *cobra.Command {
	var key, newKey string
	cmd := &cobra.Command{
		Use:   "heads (--key FILE | --new-key FILE)",
		Short: "Print the newest seals, signed, to be kept elsewhere",
		Long: `Print the newest seal of each chain as one JSON object, signed with ed25519. Whoever
keeps it, away from the database, can prove later with outrider audit verify --heads
that nothing that was written until now was changed or cut off.

--new-key makes a key, in a new file that only its owner may read, and prints the public
key that belongs to it. That takes no database.`,
		Example: `  outrider audit heads --new-key heads.key
  outrider audit heads --key heads.key > heads.json`,
		Args: cobra.ArbitraryArgs,
	}
	flags := cmd.Flags()
	flagOf(flags, &key, "key", "FILE", "", "sign with the key in this file", anyText)
	flagOf(flags, &newKey, "new-key", "FILE", "", "make a key and write it to this new file", anyText)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if newKey != "" && key == "" && len(args) == 0 {
			return a.makeHeadsKey(newKey)
		}
		conf, c := a.check(cmd)
		c.none(args)
		if (key == "") == (newKey == "") {
			c.add("give one of --key and --new-key")
		}
		if err := c.err(); err != nil {
			return err
		}
		private, err := readHeadsKey(key)
		if err != nil {
			return err
		}
		return a.withDatabase(conf, func(db *sql.DB) error {
			heads, err := postgres.NewAudit(db).Heads(cmd.Context())
			if err != nil {
				return err
			}
			heads.Sign(private)
			text, err := json.MarshalIndent(heads, "", "  ")
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(a.out, "%s\n", text)
			return err
		})
	}
	return cmd
}

// makeHeadsKey never writes over a file: it may be the only copy of a key.
func (a *app) makeHeadsKey(file string) error {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600) //nolint:gosec // the file that the user names
	if errors.Is(err, os.ErrExist) {
		return &failure{file + " is there already", "name another file; a key that signed heads is needed for as long as they are"}
	}
	if err != nil {
		return err
	}
	if err := errors.Join(pem.Encode(f, &pem.Block{Type: "PRIVATE KEY", Bytes: der}), f.Close()); err != nil {
		return err
	}
	_, err = fmt.Fprintln(a.out, base64.StdEncoding.EncodeToString(public))
	return err
}

func readHeadsKey(file string) (ed25519.PrivateKey, error) {
	content, err := os.ReadFile(file) //nolint:gosec // the file that the user names
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(content)
	if block != nil {
		if key, err := x509.ParsePKCS8PrivateKey(block.Bytes); err == nil {
			if private, ok := key.(ed25519.PrivateKey); ok {
				return private, nil
			}
		}
	}
	return nil, &failure{file + " has no ed25519 key in PEM", "make one: outrider audit heads --new-key FILE"}
}

func parsePublicKey(text string) (ed25519.PublicKey, error) {
	key, err := base64.StdEncoding.DecodeString(text)
	if err != nil || len(key) != ed25519.PublicKeySize {
		return nil, fmt.Errorf("%q is not the public key that outrider audit heads --new-key printed", text)
	}
	return key, nil
}

// readHeads reads exported heads, and whether they were signed by the key.
func readHeads(file string, public ed25519.PublicKey) (*domain.Heads, error) {
	content, err := os.ReadFile(file) //nolint:gosec // the file that the user names
	if err != nil {
		return nil, err
	}
	var heads domain.Heads
	if err := json.Unmarshal(content, &heads); err != nil || len(heads.Heads) == 0 {
		return nil, &failure{file + " holds no heads", "it must be what outrider audit heads --key printed"}
	}
	if err := heads.Verify(public); err != nil {
		return nil, &failure{fmt.Sprintf("%s: %v", file, err), "use the public key of whoever exported them, and a copy from where they were kept"}
	}
	return &heads, nil
}
