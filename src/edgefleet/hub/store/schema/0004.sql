-- An offer to a device of protocol 1 was stored as an outcome. Protocol 1 is not served any more.
DELETE FROM outcome WHERE kind = 'offered';
