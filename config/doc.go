// Package config answers the question: what did the operator write, and where
// is it wrong?
//
// Each section of the file is the type of the package that owns it. This
// package decodes the file strictly into those types, reads the secrets it
// names, asks every owner to validate, compiles the policy and the route table,
// and reports all mistakes of one file in one list, each with its line, its
// column and a cure. What Load returns is complete: nothing is parsed, merged
// or looked up again while serving.
//
// The reference docs/config.md and the JSON Schema schema.json are generated
// from the same types and their comments.
package config

//go:generate go run ./gendocs
