"""The ground floor: schemas, ports, errors and adapters that the services share. No torch, no service imports."""
