package main

import (
	"fmt"
	"io"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/doorward/doorward/internal/access"
	"github.com/doorward/doorward/internal/admin"
)

func devicesCommand(s *settings) *cobra.Command {
	f := adminFlags{settings: s}
	cmd := &cobra.Command{
		Use:   "devices",
		Short: "See what the inventories say of devices, and why one is refused",
		Long: "See what the inventories of a running doorward say of devices, how old that is, and which profiles\n" +
			"and trust tiers a device passes. Devices are judged as if their owners came with them and proved\n" +
			"them in every way the policy asks for. It asks the admin listener; address and token are those of\n" +
			"the configuration.",
	}
	f.register(cmd)
	cmd.AddCommand(f.listDevices(), f.showDevice(), f.whyDevice())
	return cmd
}

func (f *adminFlags) listDevices() *cobra.Command {
	var pick admin.DeviceFilter
	var limit int
	cmd := &cobra.Command{
		Use:   "list [--source ID] [--failing NAME] [--tier NAME] [--owner NAME]",
		Short: "List inventories and devices",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := f.connect()
			if err != nil {
				return err
			}
			query := url.Values{"source": {pick.Source}, "failing": {pick.Failing}, "tier": {pick.Tier}, "owner": {pick.Owner}, "limit": {fmt.Sprint(limit)}}
			var list admin.DeviceList
			if err := client.get(cmd.Context(), "/api/v1/devices?"+query.Encode(), &list); err != nil {
				return err
			}
			return f.settings.print(cmd, list, func(out io.Writer) error { return writeDevices(out, &list) })
		},
	}
	cmd.Flags().StringVar(&pick.Source, "source", "", "only devices that this inventory answers for, by its `ID`")
	cmd.Flags().StringVar(&pick.Failing, "failing", "", "only devices that do not pass the profile or tier `NAME`")
	cmd.Flags().StringVar(&pick.Tier, "tier", "", "only devices in the tier `NAME`, or none")
	cmd.Flags().StringVar(&pick.Owner, "owner", "", "only devices of this owner, as the inventory writes the `NAME`")
	cmd.Flags().IntVar(&limit, "limit", 100, "how many devices at most")
	return cmd
}

func writeDevices(out io.Writer, list *admin.DeviceList) error {
	var rows [][]string
	for _, s := range list.Sources {
		rows = append(rows, []string{s.ID, s.Type, fmt.Sprint(s.Devices), ago(s.ObservedAt, list.Time), ago(s.FailingSince, list.Time), s.Error})
	}
	if err := table(out, []string{"INVENTORY", "TYPE", "DEVICES", "READ", "FAILING FOR", "ERROR"}, rows); err != nil {
		return err
	}
	rows = nil
	for _, d := range list.Devices {
		rows = append(rows, []string{d.ID, d.Name, d.Owner, system(&d.Device), d.Source, ago(d.SeenAt, list.Time), d.Tier, strings.Join(d.Failing, " ")})
	}
	fmt.Fprintln(out)
	if err := table(out, []string{"DEVICE", "NAME", "OWNER", "SYSTEM", "INVENTORY", "SEEN", "TIER", "DOES NOT PASS"}, rows); err != nil {
		return err
	}
	if n := len(list.Devices); n < list.Matching {
		_, err := fmt.Fprintf(out, "There are %d; narrow the list, or raise --limit.\n", list.Matching)
		return err
	}
	return nil
}

// findDevice asks about one device.
func (f *adminFlags) findDevice(cmd *cobra.Command, id string) (*admin.DeviceInfo, error) {
	client, err := f.connect()
	if err != nil {
		return nil, err
	}
	var d admin.DeviceInfo
	return &d, client.get(cmd.Context(), "/api/v1/devices/"+url.PathEscape(id), &d)
}

func (f *adminFlags) showDevice() *cobra.Command {
	return &cobra.Command{
		Use:   "show DEVICE",
		Short: "Show one device",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			d, err := f.findDevice(cmd, args[0])
			if err != nil {
				return err
			}
			return f.settings.print(cmd, d, func(out io.Writer) error {
				return fields(out, "device", d.ID, "name", d.Name, "owner", d.Owner, "system", system(&d.Device),
					"tier", orNone(d.Tier), "does not pass", strings.Join(d.Failing, " "),
					"managed", d.Managed.String(), "compliant", d.Compliant.String(), "not compliant since", moment(d.NonCompliantSince),
					"grace of the inventory until", moment(d.GraceUntil), "disk encrypted", d.DiskEncrypted.String(),
					"jailbroken", d.Jailbroken.String(), "risk", d.Risk.String(), "reasons", strings.Join(d.Reasons, "; "),
					"certificate serial", d.Certificate.Serial, "certificate fingerprint", d.Certificate.Fingerprint,
					"last seen", orNever(moment(d.SeenAt)), "inventory", d.Source, "inventory read", orNever(moment(d.ObservedAt)),
					"inventory failing since", moment(d.SourceFailingSince), "also listed by", strings.Join(d.Also, " "))
			})
		},
	}
}

func (f *adminFlags) whyDevice() *cobra.Command {
	return &cobra.Command{
		Use:   "why DEVICE",
		Short: "Tell which profiles and tiers a device passes, and why not the others",
		Long: "Tell which profiles and trust tiers a device passes at this moment, and what it lacks for every\n" +
			"other. Exits 0 if it passes all of them and 1 if not.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			d, err := f.findDevice(cmd, args[0])
			if err != nil {
				return err
			}
			if err := f.settings.print(cmd, d, func(out io.Writer) error { return writeWhy(out, d) }); err != nil {
				return err
			}
			if len(d.Failing) > 0 {
				return &exitError{code: exitNo}
			}
			return nil
		},
	}
}

func writeWhy(out io.Writer, d *admin.DeviceInfo) error {
	fmt.Fprintf(out, "%s  tier %s\n", printable(d.ID), printable(orNone(d.Tier)))
	for _, s := range d.Standings {
		kind, verdict := "profile", "does not pass"
		if s.Tier {
			kind = "tier"
		}
		if s.Holds {
			verdict = "passes"
		}
		if !s.Until.IsZero() {
			verdict += ", until " + moment(s.Until) + ": not compliant, within the grace period"
		}
		fmt.Fprintf(out, "\n%s %s  %s\n", kind, printable(s.Name), verdict)
		for _, need := range s.Missing {
			fmt.Fprintf(out, "  %s: %s\n", need.Reason, need.Reason.Info().Title)
			for _, fact := range [][2]string{
				{"wanted", need.Want}, {"found", need.Got}, {"since", moment(need.Began)}, {"inventory", need.Source}, {"read", moment(need.Read)},
				{"last seen", moment(need.Since)}, {"says", strings.Join(need.Details, "; ")}, {"fix", need.Fix},
			} {
				if fact[1] != "" {
					fmt.Fprintf(out, "    %-10s %s\n", fact[0], printable(fact[1]))
				}
			}
		}
	}
	return nil
}

// system is the operating system with its version.
func system(d *access.Device) string { return strings.TrimSpace(d.OS + " " + d.OSVersion) }

func orNone(s string) string {
	if s == "" {
		return admin.NoTier
	}
	return s
}

func orNever(s string) string {
	if s == "" {
		return "never"
	}
	return s
}

// ago writes how long before now a moment was, and nothing for none.
func ago(t, now time.Time) string {
	if t.IsZero() {
		return ""
	}
	d := max(0, now.Sub(t))
	if d < 48*time.Hour {
		return d.Truncate(time.Second).String()
	}
	return fmt.Sprintf("%dd", int(d/(24*time.Hour)))
}
