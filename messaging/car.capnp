# What the car says and what it is told: state, commands, parameters of one model of car.
#
# CarState comes from the car's own buses a hundred times a second, CarControl goes back to it.
# Ordinals are the wire: see log.capnp for the rules. Units: metres, m/s, m/s^2; angles of the
# steering wheel are degrees, positive to the left.

@0x8e2af1e708af8b8d;


# From the car -----------------------------------------------------------------------------------

# State of the car as read from its buses.
struct CarState @0x9da4fa09e052903c {
  vEgo @1 :Float32;  # m/s, best estimate
  wheelSpeeds @2 :WheelSpeeds;
  gasPressed @4 :Bool;  # the driver presses the pedal
  brakePressed @6 :Bool;  # the driver presses the pedal
  steeringAngleDeg @7 :Float32;  # degrees, positive to the left
  steeringTorque @8 :Float32;  # of the driver; unit depends on the car
  steeringPressed @9 :Bool;  # the driver steers
  cruiseState @10 :CruiseState;
  buttonEvents @11 :List(ButtonEvent);
  gearShifter @14 :GearShifter;
  steeringRateDeg @15 :Float32;  # degrees/s
  aEgo @16 :Float32;  # m/s^2, best estimate
  vEgoRaw @17 :Float32;  # m/s, unfiltered, from the wheels
  standstill @18 :Bool;  # the car does not move
  leftBlinker @20 :Bool;
  rightBlinker @21 :Bool;
  yawRate @22 :Float32;  # rad/s
  genericToggle @23 :Bool;
  doorOpen @24 :Bool;
  seatbeltUnlatched @25 :Bool;
  canValid @26 :Bool;  # every expected CAN message arrives and is well formed
  steeringTorqueEps @27 :Float32;  # of the motor; unit depends on the car
  stockAeb @30 :Bool;  # the car's own emergency braking acts
  stockFcw @31 :Bool;  # the car's own collision warning
  espDisabled @32 :Bool;
  leftBlindspot @33 :Bool;  # a car is beside us
  rightBlindspot @34 :Bool;  # a car is beside us
  steerFaultTemporary @35 :Bool;
  steerFaultPermanent @36 :Bool;
  steeringAngleOffsetDeg @37 :Float32;  # degrees, known error of the sensor
  brakeHoldActive @38 :Bool;
  parkingBrake @39 :Bool;
  canTimeout @40 :Bool;  # a CAN bus is silent
  fuelGauge @41 :Float32;  # 0 to 1, fuel or battery
  accFaulted @42 :Bool;  # the car's cruise control has a fault
  charging @43 :Bool;
  vEgoCluster @44 :Float32;  # m/s, as the dashboard shows
  regenBraking @45 :Bool;
  carFaultedNonCritical @47 :Bool;
  canErrorCounter @48 :UInt32;
  cumLagMs @50 :Float32;  # ms the reading loop is behind
  espActive @51 :Bool;
  vehicleSensorsInvalid @52 :Bool;
  vCruise @53 :Float32;  # km/h, set speed
  vCruiseCluster @54 :Float32;  # km/h, set speed as shown
  invalidLkasSetting @55 :Bool;
  lowSpeedAlert @56 :Bool;
  buttonEnable @57 :Bool;
  steeringDisengage @58 :Bool;  # the driver steers so hard that the system gives up
  stockLkas @59 :Bool;
  blockPcmEnable @60 :Bool;
  carNotReady @61 :Bool;

  # Front left, front right, rear left, rear right; m/s.
  struct WheelSpeeds {
    fl @0 :Float32;
    fr @1 :Float32;
    rl @2 :Float32;
    rr @3 :Float32;
  }

  # State of the car's own cruise control.
  struct CruiseState {
    enabled @0 :Bool;
    speed @1 :Float32;  # m/s
    available @2 :Bool;
    standstill @4 :Bool;
    nonAdaptive @5 :Bool;  # keeps speed, not distance
    speedCluster @6 :Float32;  # m/s, as the dashboard shows

    deprecated :group {
      speedOffset @3 :Float32;
    }
  }

  # A button was pressed or released.
  struct ButtonEvent {
    pressed @0 :Bool;
    type @1 :Type;

    enum Type {
      unknown @0;
      leftBlinker @1;
      rightBlinker @2;
      accelCruise @3;
      decelCruise @4;
      cancel @5;
      lkas @6;
      altButton2 @7;
      mainCruise @8;
      setCruise @9;
      resumeCruise @10;
      gapAdjustCruise @11;
    }
  }

  enum GearShifter {
    unknown @0;
    park @1;
    drive @2;
    neutral @3;
    reverse @4;
    sport @5;
    low @6;
    brake @7;
    eco @8;
    manumatic @9;
  }

  deprecated :group {
    errors @0 :List(OnroadEventDEPRECATED.EventName);
    gas @3 :Float32;
    brake @5 :Float32;
    canMonoTimes @12 :List(UInt64);
    events @13 :List(OnroadEventDEPRECATED);
    brakeLights @19 :Bool;
    clutchPressed @28 :Bool;
    steeringRateLimited @29 :Bool;
    engineRpm @46 :Float32;
    canRcvTimeout @49 :Bool;
  }
}

# Points seen by the radar of the car.
struct RadarData @0x888ad6581cf0aacb {
  points @1 :List(RadarPoint);
  errors @3 :Error;

  struct Error {
    canError @0 :Bool;
    radarFault @1 :Bool;
    wrongConfig @2 :Bool;
    radarUnavailableTemporary @3 :Bool;
  }

  struct RadarPoint {
    trackId @0 :UInt64;  # the same object keeps its number
    dRel @1 :Float32;  # m ahead of the front of the car
    yRel @2 :Float32;  # m, positive to the left
    vRel @3 :Float32;  # m/s, relative to the own car

    deprecated :group {
      aRel @4 :Float32;
      yvRel @5 :Float32;
      measured @6 :Bool;
    }
  }

  deprecated :group {
    errors @0 :List(ErrorDEPRECATED);
    canMonoTimes @2 :List(UInt64);
  }

  enum ErrorDEPRECATED {
    canError @0;
    fault @1;
    wrongConfig @2;
  }
}


# To the car -------------------------------------------------------------------------------------

# What the car is asked to do.
struct CarControl @0xf78829049ab814af {
  enabled @0 :Bool;  # the system is engaged
  cruiseControl @4 :CruiseControl;
  hudControl @5 :HUDControl;
  actuators @6 :Actuators;
  latActive @11 :Bool;  # steering is
  longActive @12 :Bool;  # gas and brake are
  orientationNED @13 :List(Float32);  # rad: roll, pitch, yaw
  angularVelocity @14 :List(Float32);  # rad/s
  leftBlinker @15 :Bool;
  rightBlinker @16 :Bool;
  currentCurvature @17 :Float32;  # 1/m, measured
  driverMonitoringEscalation @18 :Bool;

  # Set points. Which of them matter depends on the car.
  struct Actuators {
    gas @0 :Float32;  # 0 to 1
    brake @1 :Float32;  # 0 to 1
    torque @2 :Float32;  # -1 to 1, positive to the left
    steeringAngleDeg @3 :Float32;  # degrees
    accel @4 :Float32;  # m/s^2
    longControlState @5 :LongControlState;
    speed @6 :Float32;  # m/s
    curvature @7 :Float32;  # 1/m
    torqueOutputCan @8 :Float32;  # value sent on the CAN bus

    enum LongControlState @0xe40f3a917d908282 {
      off @0;
      pid @1;
      stopping @2;
      starting @3;
    }
  }

  struct CruiseControl {
    cancel @0 :Bool;
    resume @1 :Bool;
    override @4 :Bool;

    deprecated :group {
      speedOverride @2 :Float32;
      accelOverride @3 :Float32;
    }
  }

  struct HUDControl {
    speedVisible @0 :Bool;
    setSpeed @1 :Float32;  # m/s
    lanesVisible @2 :Bool;
    leadVisible @3 :Bool;
    visualAlert @4 :VisualAlert;
    audibleAlert @5 :AudibleAlert;
    rightLaneVisible @6 :Bool;
    leftLaneVisible @7 :Bool;
    rightLaneDepart @8 :Bool;
    leftLaneDepart @9 :Bool;
    leadDistanceBars @10 :Int8;

    enum VisualAlert {
      none @0;
      fcw @1;
      steerRequired @2;
      brakePressed @3;
      wrongGear @4;
      seatbeltUnbuckled @5;
      speedTooHigh @6;
      ldw @7;
    }

    enum AudibleAlert {
      none @0;
      engage @1;
      disengage @2;
      refuse @3;
      warningSoft @4;
      warningImmediate @5;
      prompt @6;
      promptRepeat @7;
      promptDistracted @8;
    }
  }

  deprecated :group {
    gas @1 :Float32;
    brake @2 :Float32;
    steeringTorque @3 :Float32;
    active @7 :Bool;
    roll @8 :Float32;
    pitch @9 :Float32;
    actuatorsOutput @10 :Actuators;
  }
}

# What was really sent to the car after its limits.
struct CarOutput @0xd817d6655115ca85 {
  actuatorsOutput @0 :CarControl.Actuators;
}


# About the car ----------------------------------------------------------------------------------

# Constant properties of one model of car.
struct CarParams @0x8c69372490aaa9da {
  brand @0 :Text;
  carFingerprint @1 :Text;
  pcmCruise @3 :Bool;
  minEnableSpeed @7 :Float32;  # m/s
  minSteerSpeed @8 :Float32;  # m/s
  mass @17 :Float32;  # kg
  wheelbase @18 :Float32;  # m
  centerToFront @19 :Float32;  # m, centre of mass to front axle
  steerRatio @20 :Float32;  # steering wheel angle / road wheel angle
  steerRatioRear @21 :Float32;
  rotationalInertia @22 :Float32;  # kg m^2
  tireStiffnessFront @23 :Float32;  # N/rad
  tireStiffnessRear @24 :Float32;  # N/rad
  longitudinalTuning @25 :LongitudinalPIDTuning;
  steerControlType @34 :SteerControlType;
  radarUnavailable @35 :Bool;  # no radar points from this car
  steerActuatorDelay @36 :Float32;  # s
  openpilotLongitudinalControl @37 :Bool;  # we control gas and brake
  carVin @38 :Text;
  dashcamOnly @41 :Bool;  # never drives
  transmissionType @43 :TransmissionType;
  carFw @44 :List(CarFw);
  steerLimitTimer @47 :Float32;  # s
  lateralParams @48 :LateralParams;
  fingerprintSource @49 :FingerprintSource;
  networkLocation @50 :NetworkLocation;
  fuzzyFingerprint @55 :Bool;
  enableBsm @56 :Bool;
  longitudinalActuatorDelay @58 :Float32;  # s
  stopAccel @60 :Float32;  # m/s^2, held while stopped
  safetyConfigs @62 :List(SafetyConfig);
  wheelSpeedFactor @63 :Float32;
  flags @64 :UInt32;
  alternativeExperience @65 :Int16;
  notCar @66 :Bool;
  maxLateralAccel @68 :Float32;  # m/s^2
  autoResumeSng @69 :Bool;
  alphaLongitudinalAvailable @71 :Bool;
  tireStiffnessFactor @72 :Float32;
  passive @73 :Bool;
  radarDelay @74 :Float32;  # s
  secOcRequired @75 :Bool;
  secOcKeyAvailable @76 :Bool;
  steerAtStandstill @77 :Bool;

  lateralTuning :union {
    pid @26 :LateralPIDTuning;
    indiDEPRECATED @27 :LateralINDITuningDEPRECATED;
    lqrDEPRECATED @40 :LateralLQRTuningDEPRECATED;
    torque @67 :LateralTorqueTuning;
  }

  struct LongitudinalPIDTuning {
    kiBP @2 :List(Float32);
    kiV @3 :List(Float32);

    deprecated :group {
      kpBP @0 :List(Float32);
      kpV @1 :List(Float32);
      deadzoneBP @4 :List(Float32);
      deadzoneV @5 :List(Float32);
      kf @6 :Float32;
    }
  }

  struct LateralPIDTuning {
    kpBP @0 :List(Float32);
    kpV @1 :List(Float32);
    kiBP @2 :List(Float32);
    kiV @3 :List(Float32);
    kf @4 :Float32;
  }

  struct LateralTorqueTuning {
    friction @3 :Float32;
    steeringAngleDeadzoneDeg @5 :Float32;
    latAccelFactor @6 :Float32;
    latAccelOffset @7 :Float32;

    deprecated :group {
      useSteeringAngle @0 :Bool;
      kp @1 :Float32;
      ki @2 :Float32;
      kf @4 :Float32;
      kd @8 :Float32;
    }
  }

  struct CarFw {
    ecu @0 :Ecu;
    fwVersion @1 :Data;
    address @2 :UInt32;
    subAddress @3 :UInt8;
    responseAddress @4 :UInt32;
    request @5 :List(Data);
    brand @6 :Text;
    bus @7 :UInt8;
    logging @8 :Bool;
    obdMultiplexing @9 :Bool;
  }

  struct LateralParams {
    torqueBP @0 :List(Int32);
    torqueV @1 :List(Int32);
  }

  struct SafetyConfig {
    safetyModel @0 :SafetyModel;
    safetyParam @3 :UInt16;

    deprecated :group {
      safetyParam @1 :Int16;
      safetyParam2 @2 :UInt32;
    }
  }

  enum SafetyModel {
    silent @0;
    hondaNidec @1;
    toyota @2;
    elm327 @3;
    gm @4;
    hondaBoschGiraffe @5;
    ford @6;
    cadillac @7;
    hyundai @8;
    chrysler @9;
    tesla @10;
    subaru @11;
    gmPassive @12;
    mazda @13;
    nissan @14;
    volkswagen @15;
    toyotaIpas @16;
    allOutput @17;
    gmAscm @18;
    noOutput @19;
    hondaBosch @20;
    volkswagenPq @21;
    subaruPreglobal @22;
    hyundaiLegacy @23;
    hyundaiCommunity @24;
    volkswagenMlb @25;
    hongqi @26;
    body @27;
    hyundaiCanfd @28;
    volkswagenMqbEvo @29;
    chryslerCusw @30;
    psa @31;
    fcaGiorgio @32;
    rivian @33;
    volkswagenMeb @34;
    byd @35;
    volvo @36;
    bmw @37;
    mg @38;
  }

  enum SteerControlType {
    torque @0;
    angle @1;
    curvature @2;
  }

  enum TransmissionType {
    unknown @0;
    automatic @1;
    manual @2;
    direct @3;
    cvt @4;
  }

  enum Ecu {
    eps @0;
    abs @1;
    fwdRadar @2;
    fwdCamera @3;
    engine @4;
    unknown @5;
    dsu @6;
    parkingAdas @7;
    transmission @8;
    srs @9;
    gateway @10;
    hud @11;
    combinationMeter @12;
    vsa @13;
    programmedFuelInjection @14;
    electricBrakeBooster @15;
    shiftByWire @16;
    debug @17;
    hybrid @18;
    adas @19;
    hvac @20;
    cornerRadar @21;
    epb @22;
    telematics @23;
    body @24;
  }

  enum FingerprintSource {
    can @0;
    fw @1;
    fixed @2;
  }

  enum NetworkLocation {
    fwdCamera @0;
    gateway @1;
  }

  deprecated :group {
    enableGasInterceptor @2 :Bool;
    enableCamera @4 :Bool;
    enableDsu @5 :Bool;
    enableApgs @6 :Bool;
    safetyModel @9 :SafetyModel;
    safetyParam @10 :Int16;
    steerMaxBP @11 :List(Float32);
    steerMaxV @12 :List(Float32);
    gasMaxBP @13 :List(Float32);
    gasMaxV @14 :List(Float32);
    brakeMaxBP @15 :List(Float32);
    brakeMaxV @16 :List(Float32);
    steerLimitAlert @28 :Bool;
    vEgoStopping @29 :Float32;
    directAccelControl @30 :Bool;
    stoppingControl @31 :Bool;
    startAccel @32 :Float32;
    steerRateCost @33 :Float32;
    isPandaBlack @39 :Bool;
    safetyModelPassive @42 :SafetyModel;
    radarTimeStep @45 :Float32 = 0.05;
    communityFeature @46 :Bool;
    minSpeedCan @51 :Float32;
    stoppingDecelRate @52 :Float32;
    startingAccelRate @53 :Float32;
    maxSteeringAngleDeg @54 :Float32;
    hasStockCamera @57 :Bool;
    vEgoStarting @59 :Float32;
    longitudinalActuatorDelayLowerBound @61 :Float32;
    startingState @70 :Bool;
  }

  # Older name: LateralINDITuning.
  struct LateralINDITuningDEPRECATED {
    outerLoopGainBP @4 :List(Float32);
    outerLoopGainV @5 :List(Float32);
    innerLoopGainBP @6 :List(Float32);
    innerLoopGainV @7 :List(Float32);
    timeConstantBP @8 :List(Float32);
    timeConstantV @9 :List(Float32);
    actuatorEffectivenessBP @10 :List(Float32);
    actuatorEffectivenessV @11 :List(Float32);

    deprecated :group {
      outerLoopGain @0 :Float32;
      innerLoopGain @1 :Float32;
      timeConstant @2 :Float32;
      actuatorEffectiveness @3 :Float32;
    }
  }

  # Older name: LateralLQRTuning.
  struct LateralLQRTuningDEPRECATED {
    scale @0 :Float32;
    ki @1 :Float32;
    dcGain @2 :Float32;
    a @3 :List(Float32);
    b @4 :List(Float32);
    c @5 :List(Float32);
    k @6 :List(Float32);
    l @7 :List(Float32);
  }
}


# No longer sent ---------------------------------------------------------------------------------

# Older name: CarEvent.
struct OnroadEventDEPRECATED @0x9b1657f34caf3ad3 {
  name @0 :EventName;
  enable @1 :Bool;
  noEntry @2 :Bool;
  warning @3 :Bool;
  userDisable @4 :Bool;
  softDisable @5 :Bool;
  immediateDisable @6 :Bool;
  preEnable @7 :Bool;
  permanent @8 :Bool;
  overrideLongitudinal @9 :Bool;
  overrideLateral @10 :Bool;

  enum EventName @0xbaa8c5d505f727de {
    canError @0;
    steerUnavailable @1;
    brakeUnavailableDEPRECATED @2;
    gasUnavailableDEPRECATED @3;
    wrongGear @4;
    doorOpen @5;
    seatbeltNotLatched @6;
    espDisabled @7;
    wrongCarMode @8;
    steerTempUnavailable @9;
    reverseGear @10;
    buttonCancel @11;
    buttonEnable @12;
    pedalPressed @13;
    cruiseDisabled @14;
    radarCanErrorDEPRECATED @15;
    dataNeededDEPRECATED @16;
    speedTooLow @17;
    outOfSpace @18;
    overheat @19;
    calibrationIncomplete @20;
    calibrationInvalid @21;
    controlsMismatch @22;
    pcmEnable @23;
    pcmDisable @24;
    noTargetDEPRECATED @25;
    radarFault @26;
    modelCommIssueDEPRECATED @27;
    brakeHold @28;
    parkBrake @29;
    manualRestart @30;
    lowSpeedLockoutDEPRECATED @31;
    plannerErrorDEPRECATED @32;
    ipasOverrideDEPRECATED @33;
    joystickDebug @34;
    steerTempUnavailableSilent @35;
    resumeRequired @36;
    preDriverDistracted @37;
    promptDriverDistracted @38;
    driverDistracted @39;
    geofenceDEPRECATED @40;
    driverMonitorOnDEPRECATED @41;
    driverMonitorOffDEPRECATED @42;
    preDriverUnresponsive @43;
    promptDriverUnresponsive @44;
    driverUnresponsive @45;
    belowSteerSpeed @46;
    calibrationProgressDEPRECATED @47;
    lowBattery @48;
    invalidGiraffeHondaDEPRECATED @49;
    paramsdTemporaryError @50;
    accFaulted @51;
    sensorDataInvalid @52;
    commIssue @53;
    tooDistracted @54;
    posenetInvalid @55;
    soundsUnavailableDEPRECATED @56;
    preLaneChangeLeft @57;
    preLaneChangeRight @58;
    laneChange @59;
    invalidGiraffeToyotaDEPRECATED @60;
    internetConnectivityNeededDEPRECATED @61;
    communityFeatureDisallowedDEPRECATED @62;
    lowMemory @63;
    stockAeb @64;
    ldw @65;
    carUnrecognized @66;
    radarCommIssueDEPRECATED @67;
    driverMonitorLowAccDEPRECATED @68;
    invalidLkasSetting @69;
    speedTooHigh @70;
    laneChangeBlocked @71;
    relayMalfunction @72;
    preEnableStandstill @73;
    stockFcw @74;
    startup @75;
    startupNoCar @76;
    startupNoControl @77;
    startupMaster @78;
    fcw @79;
    steerSaturated @80;
    whitePandaUnsupportedDEPRECATED @81;
    startupOneplusDEPRECATED @82;
    commIssueWarningDEPRECATED @83;
    belowEngageSpeed @84;
    noGps @85;
    focusRecoverActiveDEPRECATED @86;
    wrongCruiseMode @87;
    neosUpdateRequiredDEPRECATED @88;
    modeldLagging @89;
    deviceFalling @90;
    fanMalfunction @91;
    cameraMalfunction @92;
    modelLagWarningDEPRECATED @93;
    gpsMalfunctionDEPRECATED @94;
    processNotRunning @95;
    dashcamMode @96;
    startupFuzzyFingerprintDEPRECATED @97;
    selfdriveInitializing @98;
    usbError @99;
    roadCameraErrorDEPRECATED @100;
    driverCameraErrorDEPRECATED @101;
    wideRoadCameraErrorDEPRECATED @102;
    locationdTemporaryError @103;
    startupNoFwDEPRECATED @104;
    highCpuUsageDEPRECATED @105;
    cruiseMismatch @106;
    lkasDisabledDEPRECATED @107;
    gasPressedOverride @108;
    commIssueAvgFreq @109;
    cameraFrameRate @110;
    canBusMissing @111;
    selfdrivedLagging @112;
    resumeBlocked @113;
    steerOverride @114;
    steerTimeLimit @115;
    vehicleSensorsInvalid @116;
    calibrationRecalibrating @117;
    locationdPermanentError @118;
    paramsdPermanentError @119;
    actuatorsApiUnavailable @120;
    espActive @121;
    personalityChanged @122;
    aeb @123;
    longitudinalManeuver @124;
    startupNoSecOcKey @125;
  }
}
